// Softmax, band masks and scaled dot product attention.
#include <cmath>

#include "interpreter.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

template <class T>
T maximum(const T* x, int64_t n) {
    T top = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        top = std::isnan(x[i]) || x[i] > top ? x[i] : top;
    return top;
}

template <class T>
bool compare(int mode, T x, T y) {
    switch (mode) {
        case CUDNN_POINTWISE_CMP_GE: return x >= y;
        case CUDNN_POINTWISE_CMP_GT: return x > y;
        case CUDNN_POINTWISE_CMP_LE: return x <= y;
    }
    return x < y;
}

}  // namespace

template <class T>
void Interpreter<T>::softmax(const Operation& operation) {
    Array x = input(operation, "x");
    int64_t n = operation.inputs.at("x")->dims.back();
    int64_t n_rows = static_cast<int64_t>(x.size()) / n;
    std::map<std::string, Array> more;
    for (const char* name : {"max", "sum", "stats"})
        more[name].resize(n_rows);
    for (int64_t row = 0; row < n_rows; row++) {
        T* line = x.data() + row * n;
        T top = maximum(line, n);
        T sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += line[i] = std::exp(line[i] - top);
        for (int64_t i = 0; i < n; i++)
            line[i] /= sum;
        more["max"][row] = top;
        more["sum"][row] = sum;
        more["stats"][row] = top + std::log(sum);
    }
    set_output(operation, std::move(x));
    for (auto& [name, found] : more) {
        auto output = operation.outputs.find(name);
        if (output != operation.outputs.end()) set(output->second, std::move(found));
    }
}

// b where the comparison of a key's and a query's position fails. One of them is shifted, and aligned at the last ones
// where there are lengths.
template <class T>
void Interpreter<T>::band_mask(const Operation& operation) {
    const Sizes& dims = operation.outputs.at("y")->dims;
    Array y = input(operation, "x");
    T masked = input(operation, "b")[0];
    bool is_left = operation.has("left");
    T shift = 0;
    if (is_left) {
        shift = input(operation, "left")[0];
    } else if (operation.has("shift")) {
        shift = input(operation, "shift")[0];
    }
    Sizes n_more_keys(dims[0], 0);
    constexpr int64_t ENDLESS = 1 << 30;
    for (auto [name, sign] : {std::pair("kv_lengths", 1), std::pair("q_lengths", -1)}) {
        if (!operation.has(name)) continue;
        const Sizes found = lengths(operation, name, dims[0], ENDLESS);
        for (int64_t i = 0; i < dims[0]; i++)
            n_more_keys[i] += sign * found[i];
    }
    Walk walk(dims, {});
    for (size_t i = 0; i < y.size(); i++, walk.next()) {
        int64_t n_more = n_more_keys[walk.index[0]];
        int64_t query = walk.index[2];
        int64_t key = walk.index[3];
        T one = is_left ? key + shift - n_more : query + shift + n_more;
        T other = static_cast<T>(is_left ? query : key);
        if (!compare(operation.mode, one, other)) y[i] = masked;
    }
    set_output(operation, std::move(y));
}

// [batch, heads, queries, keys], as the graph of scores leaves them
template <class T>
std::vector<T> Interpreter<T>::attention_scores(const Operation& operation) {
    const Sizes& q_dims = operation.inputs.at("q")->dims;
    const Sizes& k_dims = operation.inputs.at("k")->dims;
    const Array& q = input(operation, "q");
    const Array& k = input(operation, "k");
    int64_t n_heads = q_dims[1];
    int64_t n_queries = q_dims[2];
    int64_t head_size = q_dims[3];
    int64_t n_keys = k_dims[2];
    int64_t n_sharing = n_heads / k_dims[1];
    Array scores(q_dims[0] * n_heads * n_queries * n_keys);
    for (int64_t i = 0; i < q_dims[0] * n_heads; i++) {
        // heads of all entries are counted through
        const T* keys = k.data() + i / n_sharing * n_keys * head_size;
        const T* queries = q.data() + i * n_queries * head_size;
        multiply<T>(n_keys, n_queries, head_size, rows(keys, head_size), columns(queries, head_size), Rounding::NONE,
                    scores.data() + i * n_queries * n_keys);
    }
    T scale = operation.has("scale") ? input(operation, "scale")[0] : T(1);
    for (T& score : scores)
        score *= scale;
    if (!operation.score_graph) return scores;
    Interpreter inner(*operation.score_graph, launch_);
    inner.values_[operation.score_uid] = std::move(scores);
    inner.run();
    return std::move(inner.values_.at(operation.result_uid));
}

template <class T>
void Interpreter<T>::attention(const Operation& operation) {
    const Tensor& result = *operation.outputs.at("y");
    const Sizes& v_dims = operation.inputs.at("v")->dims;
    int operand_type = operation.inputs.at("q")->data_type;
    const Array scores = attention_scores(operation);
    const Array& v = input(operation, "v");
    int64_t n_keys = v_dims[2];
    int64_t size = v_dims[3];
    int64_t n_sharing = result.dims[1] / v_dims[1];
    const Sizes q_lengths = lengths(operation, "q_lengths", result.dims[0], result.dims[2]);
    const Sizes kv_lengths = lengths(operation, "kv_lengths", result.dims[0], n_keys);
    Array y(result.size(), T(0));
    Walk walk(Sizes(result.dims.begin(), result.dims.end() - 1), {});
    for (int64_t row = 0; row < result.size() / size; row++, walk.next()) {
        int64_t entry = walk.index[0];
        int64_t head = walk.index[1];
        int64_t query = walk.index[2];
        if (query >= q_lengths[entry]) continue;
        int64_t n_seen = kv_lengths[entry];
        const T* line = scores.data() + row * n_keys;
        const T* values = v.data() + (entry * v_dims[1] + head / n_sharing) * n_keys * size;
        T* to = y.data() + row * size;
        T top = maximum(line, n_seen);
        if (top == -INFINITY) {  // what cuDNN gives then isn't documented
            remark("run", "query ", query, " of entry ", entry, ", head ", head, " sees no key");
            std::fill(to, to + size, T(NAN));
            continue;
        }
        T sum = 0;
        for (int64_t key = 0; key < n_seen; key++) {
            T weight = std::exp(line[key] - top);
            sum += weight;
            // the second product's operands are of the first one's type
            round_to(operand_type, &weight, 1);
            for (int64_t i = 0; i < size; i++)
                to[i] += weight * values[key * size + i];
        }
        for (int64_t i = 0; i < size; i++)
            to[i] /= sum;
    }
    set_output(operation, std::move(y));
}

template void Interpreter<float>::softmax(const Operation&);
template void Interpreter<double>::softmax(const Operation&);
template void Interpreter<float>::band_mask(const Operation&);
template void Interpreter<double>::band_mask(const Operation&);
template void Interpreter<float>::attention(const Operation&);
template void Interpreter<double>::attention(const Operation&);

}  // namespace cuda_on_cpu::cudnn
