// Softmax, band masks and scaled dot product attention: what their descriptors must say, and that their tensors fit.
#include <utility>

#include "descriptors.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

// q, y: [batch, heads, queries, ·]; k, v: [batch, heads or fewer, keys, ·]
bool is_attention_of(const Sizes& q, const Sizes& k, const Sizes& v, const Sizes& y) {
    bool same_batch = q[0] == k[0] && q[0] == v[0] && q[0] == y[0];
    bool heads_fit = q[1] == y[1] && q[1] % k[1] == 0 && q[1] % v[1] == 0;
    bool lengths_fit = q[2] == y[2] && k[2] == v[2];
    return same_batch && heads_fit && lengths_fit && q[3] == k[3] && v[3] == y[3];
}

}  // namespace

cudnnStatus_t finalize_softmax_operation(Descriptor& descriptor) {
    const char* where = "finalize of a softmax";
    if (descriptor.lacking({CUDNN_ATTR_OPERATION_SOFTMAX_XDESC, CUDNN_ATTR_OPERATION_SOFTMAX_YDESC}))
        return bad(where, "x or y isn't set");
    if (descriptor.has(CUDNN_ATTR_OPERATION_SOFTMAX_SINK_DESC))
        return decline(CUDNN_STATUS_NOT_SUPPORTED, where, "sinks aren't done here");
    auto operation = std::make_shared<Operation>();
    operation->type = descriptor.type;
    TensorPtr x = descriptor.tensor_of(CUDNN_ATTR_OPERATION_SOFTMAX_XDESC);
    TensorPtr y = descriptor.tensor_of(CUDNN_ATTR_OPERATION_SOFTMAX_YDESC);
    if (x->dims != y->dims) return bad(where, *x, " to ", *y);
    operation->inputs = {{"x", x}};
    operation->outputs = {{"y", y}};
    Sizes rows = x->dims;
    rows.back() = 1;
    const std::pair<const char*, int> more[] = {
        {"stats", CUDNN_ATTR_OPERATION_SOFTMAX_STATS_DESC},
        {"max", CUDNN_ATTR_OPERATION_SOFTMAX_MAX_DESC},
        {"sum", CUDNN_ATTR_OPERATION_SOFTMAX_SUM_EXP_DESC},
    };
    for (auto [name, attribute] : more) {
        TensorPtr found = descriptor.tensor_of(attribute);
        if (!found) continue;
        if (found->dims != rows) return bad(where, *found, " of ", *x);
        operation->outputs[name] = found;
    }
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_band_mask_operation(Descriptor& descriptor) {
    const char* where = "finalize of a diagonal band mask";
    if (descriptor.lacking(
            {CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC,
             CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE}))
        return bad(where, "x, b, y or the comparison isn't set");
    auto operation = std::make_shared<Operation>();
    operation->type = descriptor.type;
    const std::pair<const char*, int> inputs[] = {
        {"x", CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC},
        {"b", CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC},
        {"q_lengths", CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_SEQ_LEN_QDESC},
        {"kv_lengths", CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_SEQ_LEN_KVDESC},
        {"left", CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_LEFT_BOUND_DESC},
        {"shift", CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_SHIFT_RIGHT_BOUND_DESC},
    };
    for (auto [name, attribute] : inputs) {
        if (TensorPtr found = descriptor.tensor_of(attribute)) operation->inputs[name] = found;
    }
    const Tensor& x = *operation->inputs.at("x");
    TensorPtr y = descriptor.tensor_of(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC);
    if (x.dims != y->dims || y->dims.size() != 4) return bad(where, x, " to ", *y);
    for (const char* name : {"q_lengths", "kv_lengths"}) {
        if (!operation->has(name)) continue;
        const Tensor& lengths = *operation->inputs.at(name);
        if (lengths.size() != 1 && lengths.size() != y->dims[0]) return bad(where, "lengths ", lengths, " for ", *y);
    }
    operation->mode = descriptor.get<int>(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE);
    operation->outputs = {{"y", y}};
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_attention_operation(Descriptor& descriptor) {
    const char* where = "finalize of an attention";
    auto lacking = descriptor.lacking({CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC,
                                       CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC});
    if (lacking) return bad(where, "attribute ", *lacking, " isn't set");
    for (int attribute : {CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_BLOCK_MASK_DESC,
                          CUDNN_ATTR_OPERATION_SDPA_FWD_PAGE_TABLE_KDESC,
                          CUDNN_ATTR_OPERATION_SDPA_FWD_PAGE_TABLE_VDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_SOFTMAX_DESC}) {
        if (descriptor.has(attribute))
            return decline(CUDNN_STATUS_NOT_SUPPORTED, where, "attribute ", attribute, " isn't done here");
    }
    auto operation = std::make_shared<Operation>();
    operation->type = descriptor.type;
    TensorPtr q = descriptor.tensor_of(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC);
    TensorPtr k = descriptor.tensor_of(CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC);
    TensorPtr v = descriptor.tensor_of(CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC);
    TensorPtr y = descriptor.tensor_of(CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC);
    for (const TensorPtr& tensor : {q, k, v, y}) {
        if (tensor->dims.size() != 4) return bad(where, *tensor, " hasn't four dimensions");
    }
    if (!is_attention_of(q->dims, k->dims, v->dims, y->dims))
        return bad(where, "no attention: q ", *q, ", k ", *k, ", v ", *v, ", o ", *y);
    operation->inputs = {{"q", q}, {"k", k}, {"v", v}};
    operation->outputs = {{"y", y}};
    if (TensorPtr scale = descriptor.tensor_of(CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC)) {
        if (scale->size() != 1 || scale->data_type != CUDNN_DATA_FLOAT) return bad(where, "scale ", *scale);
        operation->inputs["scale"] = scale;
    }
    const std::pair<const char*, int> lengths[] = {
        {"q_lengths", CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_QDESC},
        {"kv_lengths", CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_KVDESC},
    };
    for (auto [name, attribute] : lengths) {
        TensorPtr found = descriptor.tensor_of(attribute);
        if (!found) continue;
        if (found->dims != Sizes{q->dims[0], 1, 1, 1} || !is_integer(found->data_type))
            return bad(where, "lengths ", *found);
        operation->inputs[name] = found;
    }
    if (operation->has("q_lengths") != operation->has("kv_lengths"))
        return bad(where, "lengths of one of queries and keys");
    if (DescriptorPtr of_scores = descriptor.descriptor(CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH)) {
        operation->score_graph = of_scores->graph;
        operation->score_uid = descriptor.get<int64_t>(CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_INPUT_UID);
        operation->result_uid = descriptor.get<int64_t>(CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_OUTPUT_UID);
        const Sizes scores{q->dims[0], q->dims[1], q->dims[2], k->dims[2]};
        for (int64_t uid : {operation->score_uid, operation->result_uid}) {
            auto found = operation->score_graph->tensors.find(uid);
            if (found == operation->score_graph->tensors.end())
                return bad(where, "tensor ", uid, " isn't in the graph of scores");
            if (!found->second->is_virtual || found->second->dims != scores)
                return bad(where, "of the graph of scores: ", *found->second);
        }
    }
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace cuda_on_cpu::cudnn
