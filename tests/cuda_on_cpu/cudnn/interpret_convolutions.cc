// Convolutions as products with a matrix of windows, and the transposed ones, which add the windows up again.
#include "interpreter.h"

namespace cuda_on_cpu::cudnn {

namespace {

int64_t product(const Sizes& sizes, size_t from) {
    int64_t n = 1;
    for (size_t i = from; i < sizes.size(); i++)
        n *= sizes[i];
    return n;
}

// Sizes of a convolution of [N, C·groups, image] with [K·groups, C, window] to [N, K·groups, places].
struct Shape {
    int64_t n, n_groups, c, k, window, image, places;
    // along three axes, the first of which are 1 where there are fewer
    int64_t windows[3] = {1, 1, 1}, images[3] = {1, 1, 1}, outputs[3] = {1, 1, 1};
    int64_t steps[3] = {1, 1, 1}, dilations[3] = {1, 1, 1}, pads[3] = {0, 0, 0};
    bool is_flipped;

    Shape(const Operation& operation, const Sizes& image_dims, const Sizes& weight_dims, const Sizes& output_dims)
        : n(image_dims[0]),
          n_groups(image_dims[1] / weight_dims[1]),
          c(weight_dims[1]),
          k(weight_dims[0] / n_groups),
          window(product(weight_dims, 2)),
          image(product(image_dims, 2)),
          places(product(output_dims, 2)),
          is_flipped(operation.is_flipped) {
        size_t n_axes = operation.steps.size();
        for (size_t i = 0; i < n_axes; i++) {
            size_t axis = 3 - n_axes + i;
            windows[axis] = weight_dims[i + 2];
            images[axis] = image_dims[i + 2];
            outputs[axis] = output_dims[i + 2];
            steps[axis] = operation.steps[i];
            dilations[axis] = operation.dilations[i];
            pads[axis] = operation.pads_before[i];
        }
    }

    // where the window's element w looks from place p along an axis; -1: in the padding
    int64_t position(int axis, int64_t p, int64_t w) const {
        if (is_flipped) w = windows[axis] - 1 - w;
        int64_t at = p * steps[axis] + w * dilations[axis] - pads[axis];
        return at >= 0 && at < images[axis] ? at : -1;
    }

    // f(element of the window, place, offset in the image or -1) for all of them
    template <class F>
    void for_each(F f) const {
        for (int64_t w = 0; w < window; w++) {
            int64_t w0 = w / (windows[1] * windows[2]);
            int64_t w1 = w / windows[2] % windows[1];
            int64_t w2 = w % windows[2];
            int64_t place = 0;
            for (int64_t p0 = 0; p0 < outputs[0]; p0++) {
                int64_t at0 = position(0, p0, w0);
                for (int64_t p1 = 0; p1 < outputs[1]; p1++) {
                    int64_t at1 = position(1, p1, w1);
                    for (int64_t p2 = 0; p2 < outputs[2]; p2++, place++) {
                        int64_t at2 = position(2, p2, w2);
                        bool is_inside = at0 >= 0 && at1 >= 0 && at2 >= 0;
                        f(w, place, is_inside ? (at0 * images[1] + at1) * images[2] + at2 : -1);
                    }
                }
            }
        }
    }
};

}  // namespace

template <class T>
void Interpreter<T>::convolution(const Operation& operation) {
    const Tensor& result = *operation.outputs.at("y");
    const Shape shape(operation, operation.inputs.at("x")->dims, operation.inputs.at("w")->dims, result.dims);
    const Array& x = input(operation, "x");
    const Array& w = input(operation, "w");
    int64_t depth = shape.c * shape.window;
    Array y(result.size());
    Array seen(depth * shape.places);  // [c · window, places]
    Array out(shape.places * shape.k);
    for (int64_t i = 0; i < shape.n * shape.n_groups; i++) {
        for (int64_t c = 0; c < shape.c; c++) {
            const T* image = x.data() + (i * shape.c + c) * shape.image;
            T* of_channel = seen.data() + c * shape.window * shape.places;
            shape.for_each([&](int64_t element, int64_t place, int64_t at) {
                of_channel[element * shape.places + place] = at < 0 ? T(0) : image[at];
            });
        }
        const T* weights = w.data() + i % shape.n_groups * shape.k * depth;
        multiply<T>(shape.places, shape.k, depth, columns(seen.data(), shape.places), columns(weights, depth),
                    rounding(), out.data());
        T* to = y.data() + i * shape.k * shape.places;
        for (int64_t j = 0; j < shape.k * shape.places; j++)
            to[j] = static_cast<T>(operation.alpha) * out[j];
    }
    set_output(operation, std::move(y));
}

template <class T>
void Interpreter<T>::backward_data(const Operation& operation) {
    const Tensor& result = *operation.outputs.at("y");
    const Shape shape(operation, result.dims, operation.inputs.at("w")->dims, operation.inputs.at("x")->dims);
    const Array& dy = input(operation, "x");
    const Array& w = input(operation, "w");
    int64_t depth = shape.c * shape.window;
    Array dx(result.size(), T(0));
    Array seen(depth * shape.places);  // [c · window, places]
    for (int64_t i = 0; i < shape.n * shape.n_groups; i++) {
        const T* from = dy.data() + i * shape.k * shape.places;
        const T* weights = w.data() + i % shape.n_groups * shape.k * depth;
        multiply<T>(shape.places, depth, shape.k, columns(from, shape.places), rows(weights, depth), rounding(),
                    seen.data());
        for (int64_t c = 0; c < shape.c; c++) {
            T* image = dx.data() + (i * shape.c + c) * shape.image;
            const T* of_channel = seen.data() + c * shape.window * shape.places;
            shape.for_each([&](int64_t element, int64_t place, int64_t at) {
                if (at >= 0) image[at] += static_cast<T>(operation.alpha) * of_channel[element * shape.places + place];
            });
        }
    }
    set_output(operation, std::move(dx));
}

template void Interpreter<float>::convolution(const Operation&);
template void Interpreter<double>::convolution(const Operation&);
template void Interpreter<float>::backward_data(const Operation&);
template void Interpreter<double>::backward_data(const Operation&);

}  // namespace cuda_on_cpu::cudnn
