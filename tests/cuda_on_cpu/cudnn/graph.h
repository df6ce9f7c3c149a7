// Operation graphs as they are checked, planned and run: tensors, operations on them, engines and plans.
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

namespace cuda_on_cpu::cudnn {

using Sizes = std::vector<int64_t>;
std::ostream& operator<<(std::ostream& stream, const Sizes& sizes);

// 0 of a data type that isn't done here
int element_nbytes(int data_type);
// the number at an address of the host
double scalar_at(int data_type, const void* at);
bool is_integer(int data_type);

struct Tensor {
    int64_t uid = 0;
    int64_t alignment = 0;
    int data_type = 0;
    Sizes dims, strides;
    bool is_virtual = false;   // has no memory: one operation's result, of which others are computed
    bool is_by_value = false;  // a scalar, whose address is one of the host
    bool is_constant = false;  // by value, and known
    double constant = 0;

    int64_t size() const;
    // elements from the first to the last one
    int64_t span() const;
    bool lies_as(const Tensor& other) const;
    bool operator==(const Tensor& other) const;
};
std::ostream& operator<<(std::ostream& stream, const Tensor& tensor);
using TensorPtr = std::shared_ptr<Tensor>;

struct Graph;

// Operands and results have the names of cuDNN's formulas. Of a backward-data convolution "x" is what it reads (dy),
// "y" what it writes (dx).
struct Operation {
    int type = 0;  // of its descriptor
    std::map<std::string, TensorPtr> inputs, outputs;
    int compute_type = CUDNN_DATA_FLOAT;
    int mode = 0;  // of a pointwise operation, a reduction, a mask's comparison
    double alpha = 1, alpha2 = 1;

    // convolutions
    Sizes steps, dilations, pads_before, pads_after;
    bool is_flipped = false;

    // pointwise
    int64_t axis = -1;
    double lower_clip = 0, lower_clip_slope = 0, upper_clip = 0;
    double elu_alpha = 1, softplus_beta = 1, swish_beta = 1;

    // products
    double padding = 0;

    // attention: what is done to the scores before the softmax
    std::shared_ptr<Graph> score_graph;
    int64_t score_uid = 0, result_uid = 0;

    bool has(const char* input) const { return inputs.count(input) > 0; }
    bool is_convolution() const;
};
using OperationPtr = std::shared_ptr<Operation>;

struct Graph {
    void* handle = nullptr;
    std::vector<OperationPtr> operations;  // each after those whose results it reads
    std::map<int64_t, TensorPtr> tensors;
    std::set<int64_t> needed;   // of a variant pack
    std::set<int64_t> written;  // those of them that are results
    bool is_double = false;
    bool is_attention = false;
    bool is_convolution = false;
    int data_type = -1;  // of its first operand
};
using GraphPtr = std::shared_ptr<Graph>;

// Which engines there are, by their global index.
enum EngineIndex {
    TENSOR_CORES = 0,     // rounds float32 to TF32
    PLAIN = 1,            // rounds nothing
    CONVERTING = 2,       // float32 to bfloat16
    LARGE_WORKSPACE = 3,  // convolutions alone
    NO_WORKSPACE = 4,     // rounds nothing either
    N_ENGINES = 5,
};

struct Engine {
    GraphPtr graph;
    int index = 0;
};

int64_t workspace_nbytes(const Engine& engine);
std::vector<int64_t> numerical_notes(const Engine& engine);
// why an engine doesn't do a graph; empty where it does
std::string unsupported(const Engine& engine);

struct Plan {
    Engine engine;
    int64_t workspace_nbytes = 0;
    std::string name;
    bool is_alive = true;  // until its descriptor is destroyed
};
using PlanPtr = std::shared_ptr<Plan>;

// One execution of a plan. A CUDA graph runs it as often as it is launched.
struct Launch {
    PlanPtr plan;
    std::map<int64_t, void*> pointers;
    std::map<int64_t, double> scalars;
    void* workspace = nullptr;
    bool is_captured = false;
};

void run(const Launch& launch);

}  // namespace cuda_on_cpu::cudnn
