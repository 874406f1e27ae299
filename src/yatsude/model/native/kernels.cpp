// The passes between the matrix products of a training step on a CPU, each over the rows once.
//
// Every function stands beside a reference in PyTorch, in the file that calls it. Sums are float whatever the elements
// are. Loops are left to the compiler's vectoriser. Pointers are to contiguous rows unless a stride is given.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using index = std::int64_t;

struct bf16 {
    std::uint16_t bits;
};

inline float wide(float x) { return x; }

inline float wide(bf16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void store(float& place, float value) { place = value; }

// To the nearest, ties to even; what is no number stays none.
inline void store(bf16& place, float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    place.bits = static_cast<std::uint16_t>(value == value ? nearest : 0x7fc0);
}

// e^x within 2 units in the last place, 0 below e^-87: a power of two times a polynomial, so that it vectorises.
inline float power(float x) {
    const float bounded = std::min(std::max(x, -87.0f), 88.0f);
    const float turns = std::rint(bounded * 1.44269504f);
    const float rest = (bounded - turns * 0.693359375f) + turns * 2.12194440e-4f;
    float sum = 1.9875691e-4f;
    sum = sum * rest + 1.3981999e-3f;
    sum = sum * rest + 8.3334519e-3f;
    sum = sum * rest + 4.1665796e-2f;
    sum = sum * rest + 1.6666665e-1f;
    sum = sum * rest + 0.5f;
    sum = sum * rest * rest + rest + 1.0f;
    const std::int32_t bits = (static_cast<std::int32_t>(turns) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return x < -87.0f ? 0.0f : (x == x ? sum * scale : x);
}

// In lanes, since a compiler does not reorder a maximum that may meet what is no number.
inline float largest(const float* x, index size) {
    constexpr index LANES = 16;
    float lane[LANES], most = -INFINITY;
    std::fill(lane, lane + LANES, most);
    index start = 0;
    for (; start + LANES <= size; start += LANES) {
#pragma omp simd
        for (index i = 0; i < LANES; ++i) lane[i] = x[start + i] > lane[i] ? x[start + i] : lane[i];
    }
    for (; start < size; ++start) most = std::max(most, x[start]);
    return std::max(most, *std::max_element(lane, lane + LANES));
}

inline float* row_buffer(index size) {
    thread_local std::vector<float> buffer;
    if (buffer.size() < static_cast<std::size_t>(size)) buffer.resize(size);
    return buffer.data();
}

// y = x / sqrt(mean(x^2) + eps) * weight; the factor of each row is kept. `stride`: elements from row to row of x.
template <class T>
void norm_forward(const T* x, const T* weight, T* y, float* inverse, index rows, index width, index stride, float eps) {
    for (index r = 0; r < rows; ++r, x += stride, y += width) {
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (index i = 0; i < width; ++i) squares += wide(x[i]) * wide(x[i]);
        const float factor = 1.0f / std::sqrt(squares / width + eps);
        inverse[r] = factor;
#pragma omp simd
        for (index i = 0; i < width; ++i) store(y[i], wide(x[i]) * factor * wide(weight[i]));
    }
}

template <class T>
void norm_backward(const T* grad, const T* x, const T* weight, const float* inverse, T* grad_x, T* grad_weight,
                   index rows, index width, index stride) {
    float* sums = row_buffer(width);
    std::fill(sums, sums + width, 0.0f);
    for (index r = 0; r < rows; ++r, x += stride, grad += width, grad_x += width) {
        const float factor = inverse[r];
        float along = 0;
#pragma omp simd reduction(+ : along)
        for (index i = 0; i < width; ++i) {
            const float product = wide(grad[i]) * wide(x[i]) * factor;
            sums[i] += product;
            along += product * wide(weight[i]);
        }
        along *= factor / width;
#pragma omp simd
        for (index i = 0; i < width; ++i)
            store(grad_x[i], (wide(grad[i]) * wide(weight[i]) - wide(x[i]) * along) * factor);
    }
    for (index i = 0; i < width; ++i) store(grad_weight[i], sums[i]);
}

// y = silu(gate) * up; a row of gate_up is gate, then up.
template <class T>
void swiglu_forward(const T* gate_up, T* y, index rows, index width) {
    for (index r = 0; r < rows; ++r, gate_up += 2 * width, y += width) {
        const T* up = gate_up + width;
#pragma omp simd
        for (index i = 0; i < width; ++i) {
            const float gate = wide(gate_up[i]);
            store(y[i], gate / (1.0f + power(-gate)) * wide(up[i]));
        }
    }
}

template <class T>
void swiglu_backward(const T* grad, const T* gate_up, T* grad_gate_up, index rows, index width) {
    for (index r = 0; r < rows; ++r, grad += width, gate_up += 2 * width, grad_gate_up += 2 * width) {
        const T* up = gate_up + width;
        T* grad_up = grad_gate_up + width;
#pragma omp simd
        for (index i = 0; i < width; ++i) {
            const float gate = wide(gate_up[i]), g = wide(grad[i]);
            const float opening = 1.0f / (1.0f + power(-gate));
            store(grad_up[i], g * gate * opening);
            store(grad_gate_up[i], g * wide(up[i]) * opening * (1.0f + gate * (1.0f - opening)));
        }
    }
}

// In place over planes of (rows, keys): softmax(scores * scale + mask). Row r looks at its first `seen + r` keys only;
// the others become 0. The mask of a plane's batch row, or null, is (rows, keys) with strides of its own.
template <class T>
void weights_forward(T* scores, const T* mask, index planes, index heads, index rows, index keys, index seen,
                     index batch_stride, index row_stride, float scale) {
    float* values = row_buffer(keys);
    for (index p = 0; p < planes; ++p) {
        for (index r = 0; r < rows; ++r, scores += keys) {
            const index count = std::min(keys, seen + r);
            if (mask) {
                const T* open = mask + p / heads * batch_stride + r * row_stride;
#pragma omp simd
                for (index i = 0; i < count; ++i) values[i] = wide(scores[i]) * scale + wide(open[i]);
            } else {
#pragma omp simd
                for (index i = 0; i < count; ++i) values[i] = wide(scores[i]) * scale;
            }
            const float most = largest(values, count);
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (index i = 0; i < count; ++i) {
                values[i] = power(values[i] - most);
                sum += values[i];
            }
            const float share = 1.0f / sum;
#pragma omp simd
            for (index i = 0; i < count; ++i) store(scores[i], values[i] * share);
            std::fill(scores + count, scores + keys, T{});
        }
    }
}

// In place over the gradient of the weights: the gradient of the products of queries and keys.
template <class T>
void weights_backward(T* grad, const T* weights, index planes, index rows, index keys, index seen, float scale) {
    for (index p = 0; p < planes; ++p) {
        for (index r = 0; r < rows; ++r, grad += keys, weights += keys) {
            const index count = std::min(keys, seen + r);
            float along = 0;
#pragma omp simd reduction(+ : along)
            for (index i = 0; i < count; ++i) along += wide(grad[i]) * wide(weights[i]);
#pragma omp simd
            for (index i = 0; i < count; ++i) store(grad[i], (wide(grad[i]) - along) * wide(weights[i]) * scale);
            std::fill(grad + count, grad + keys, T{});
        }
    }
}

// In place: logits become their gradient, (softmax - target) * scale; the sum of the cross-entropies comes back.
// A target below 0 is not counted. Offsets, or null, are added to all logits of a row but its target's.
template <class T>
double cross_entropy(T* logits, const index* targets, const T* offsets, index rows, index width, float scale) {
    float* values = row_buffer(width);
    double total = 0;
    for (index r = 0; r < rows; ++r, logits += width) {
        const index target = targets[r];
        if (target < 0) {
            std::fill(logits, logits + width, T{});
            continue;
        }
        const float own = wide(logits[target]);
        if (offsets) {
#pragma omp simd
            for (index i = 0; i < width; ++i) values[i] = wide(logits[i]) + wide(offsets[i]);
            values[target] = own;
        } else {
#pragma omp simd
            for (index i = 0; i < width; ++i) values[i] = wide(logits[i]);
        }
        const float most = largest(values, width);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (index i = 0; i < width; ++i) {
            values[i] = power(values[i] - most);
            sum += values[i];
        }
        total += static_cast<double>(most) + std::log(static_cast<double>(sum)) - own;
        const float share = scale / sum;
        values[target] -= sum;
#pragma omp simd
        for (index i = 0; i < width; ++i) store(logits[i], values[i] * share);
    }
    return total;
}

// y[n] = sum over k of x[row[n, k]], each times its weight where there are weights.
template <class T>
void combine(const T* x, const float* weights, const index* row, T* y, index tokens, index choices, index width) {
    float* sum = row_buffer(width);
    for (index n = 0; n < tokens; ++n, y += width) {
        for (index k = 0; k < choices; ++k) {
            const T* part = x + row[n * choices + k] * width;
            const float weight = weights ? weights[n * choices + k] : 1.0f;
#pragma omp simd
            for (index i = 0; i < width; ++i) sum[i] = (k ? sum[i] : 0.0f) + weight * wide(part[i]);
        }
#pragma omp simd
        for (index i = 0; i < width; ++i) store(y[i], sum[i]);
    }
}

// Gradients of `combine` with weights. Rows that no token asks for are left as they are.
template <class T>
void combine_backward(const T* grad, const T* x, const float* weights, const index* row, T* grad_x,
                      float* grad_weights, index tokens, index choices, index width) {
    for (index n = 0; n < tokens; ++n, grad += width) {
        for (index k = 0; k < choices; ++k) {
            const index place = row[n * choices + k] * width, pair = n * choices + k;
            const float weight = weights[pair];
            float product = 0;
#pragma omp simd reduction(+ : product)
            for (index i = 0; i < width; ++i) {
                const float g = wide(grad[i]);
                product += g * wide(x[place + i]);
                store(grad_x[place + i], g * weight);
            }
            grad_weights[pair] = product;
        }
    }
}

// Neighbouring pairs of each head's numbers times a complex number of the token, which is longer than 1 where positions
// are stretched; `sign` -1 turns back.
// Strides are those of x; tokens repeat their `turns` after `period` rows.
template <class T>
void rotate(const T* x, const float* turns, T* y, index batch, index tokens, index heads, index width,
            index batch_stride, index token_stride, index head_stride, index turns_stride, float sign) {
    for (index b = 0; b < batch; ++b) {
        for (index t = 0; t < tokens; ++t) {
            const float* turn = turns + b * turns_stride + t * width;
            for (index h = 0; h < heads; ++h, y += width) {
                const T* from = x + b * batch_stride + t * token_stride + h * head_stride;
#pragma omp simd
                for (index i = 0; i < width / 2; ++i) {
                    const float a = wide(from[2 * i]), b = wide(from[2 * i + 1]);
                    const float cosine = turn[2 * i], sine = sign * turn[2 * i + 1];
                    store(y[2 * i], a * cosine - b * sine);
                    store(y[2 * i + 1], a * sine + b * cosine);
                }
            }
        }
    }
}

// total = the sum of the gradients, `count` rows with a stride, which are cleared; the sum of its squares comes back.
template <class T>
double collect(T* gradients, float* total, index count, index size, index stride) {
    constexpr index BLOCK = 4096;
    double squares = 0;
    for (index start = 0; start < size; start += BLOCK) {
        const index stop = std::min(size, start + BLOCK);
        for (index g = 0; g < count; ++g) {
            T* gradient = gradients + g * stride;
            if (g == 0) {
#pragma omp simd
                for (index i = start; i < stop; ++i) total[i] = wide(gradient[i]);
            } else {
#pragma omp simd
                for (index i = start; i < stop; ++i) total[i] += wide(gradient[i]);
            }
            std::fill(gradient + start, gradient + stop, T{});
        }
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (index i = start; i < stop; ++i) sum += total[i] * total[i];
        squares += sum;
    }
    return squares;
}

// AdamW on masters, moments and a gradient that is first scaled; `compute` gets the new masters.
template <class T>
void adamw(T* compute, float* master, const float* gradient, float* first, float* second, index size, float clip,
           float rate, float decay, float beta1, float beta2, float correction1, float correction2, float epsilon) {
    const float keep = 1.0f - rate * decay, pace = rate / correction1, root = 1.0f / std::sqrt(correction2);
#pragma omp simd
    for (index i = 0; i < size; ++i) {
        const float g = gradient[i] * clip;
        const float mean = first[i] + (1.0f - beta1) * (g - first[i]);
        const float square = beta2 * second[i] + (1.0f - beta2) * g * g;
        const float value = master[i] * keep - pace * mean / (std::sqrt(square) * root + epsilon);
        first[i] = mean;
        second[i] = square;
        master[i] = value;
        store(compute[i], value);
    }
}

struct Kernel {
    const char* name;
    const void *bf16, *fp32;
};

#define KERNEL(name) {#name, reinterpret_cast<const void*>(&name<bf16>), reinterpret_cast<const void*>(&name<float>)}

}  // namespace

// What the library gives away: each name with its two functions, and an empty name at the end.
extern "C" const Kernel kernels[] = {
    KERNEL(norm_forward),    KERNEL(norm_backward),    KERNEL(swiglu_forward), KERNEL(swiglu_backward),
    KERNEL(weights_forward), KERNEL(weights_backward), KERNEL(cross_entropy),  KERNEL(combine),
    KERNEL(combine_backward), KERNEL(rotate),          KERNEL(collect),        KERNEL(adamw),
    {nullptr, nullptr, nullptr},
};
