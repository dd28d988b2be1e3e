// Runs a CUDA kernel on the CPU: one fibre per CUDA thread, blocks one after the other.
//
// It exists to prove kernels, not to be fast. A fibre runs until it meets __syncthreads() or returns; when every live
// fibre of the block waits at the barrier, all go on. A barrier that only some threads reach is reported through
// tf_shim::error() instead of being forgiven, as real hardware may hang or go on with stale data.
//
// Modelled: threadIdx / blockIdx / blockDim / gridDim in up to three dimensions, __syncthreads, dynamic shared memory,
// dp4a. Not modelled: warp divergence, asynchronous copies, the rounding of the fast-math intrinsics.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
    unsigned volume() const { return x * y * z; }
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tf_shim {

class Block {
   public:
    Block(dim3 size, std::function<void()> kernel) : size_(size), kernel_(std::move(kernel)), fibres_(size.volume()) {}

    // Runs all threads of the block to their end. Returns false when a barrier was not reached by every live thread.
    bool run() {
        current_block = this;
        for (unsigned i = 0; i < fibres_.size(); ++i) start(i);
        while (live_ > 0) {
            unsigned resumed = 0;
            for (unsigned i = 0; i < fibres_.size(); ++i) {
                if (fibres_[i].state == State::Ready) {
                    resume(i);
                    ++resumed;
                }
            }
            unsigned waiting = 0;
            for (const Fibre &fibre : fibres_) waiting += fibre.state == State::AtBarrier;
            if (waiting > 0 && waiting < fibres_.size()) divergent_ = true;
            for (Fibre &fibre : fibres_) {
                if (fibre.state == State::AtBarrier) fibre.state = State::Ready;
            }
            if (resumed == 0 && waiting == 0) break;
        }
        current_block = nullptr;
        return !divergent_;
    }

    void barrier() { leave(State::AtBarrier); }

    static inline Block *current_block = nullptr;

   private:
    enum class State { Ready, AtBarrier, Done };
    struct Fibre {
        ucontext_t context{};
        std::unique_ptr<char[]> stack;
        State state = State::Ready;
    };
    static constexpr size_t kStack = 64 * 1024;

    static void entry() {
        Block *block = current_block;
        block->kernel_();
        --block->live_;
        block->leave(State::Done);
    }

    void start(unsigned i) {
        Fibre &fibre = fibres_[i];
        fibre.stack = std::make_unique<char[]>(kStack);
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.get();
        fibre.context.uc_stack.ss_size = kStack;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, entry, 0);
        ++live_;
    }

    void resume(unsigned i) {
        running_ = i;
        threadIdx = dim3(i % size_.x, (i / size_.x) % size_.y, i / (size_.x * size_.y));
        swapcontext(&scheduler_, &fibres_[i].context);
    }

    void leave(State state) {
        Fibre &fibre = fibres_[running_];
        fibre.state = state;
        swapcontext(&fibre.context, &scheduler_);
    }

    dim3 size_;
    std::function<void()> kernel_;
    std::vector<Fibre> fibres_;
    ucontext_t scheduler_{};
    unsigned running_ = 0;
    unsigned live_ = 0;
    bool divergent_ = false;
};

inline std::vector<double> shared_storage;  // double: aligned for every type a kernel keeps there
inline std::string last_error;

inline void *dynamic_shared() { return shared_storage.data(); }

inline const char *error() { return last_error.empty() ? nullptr : last_error.c_str(); }

template <class Kernel>
void launch(dim3 grid, dim3 block, size_t shared_bytes, Kernel kernel) {
    last_error.clear();
    gridDim = grid;
    blockDim = block;
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                // Shared memory starts undefined on a GPU; NaN bytes make a read before the write show.
                shared_storage.assign(shared_bytes / sizeof(double) + 1, std::nan(""));
                blockIdx = dim3(x, y, z);
                if (!Block(block, kernel).run()) {
                    last_error = "__syncthreads() was not reached by every thread of the block";
                    return;
                }
            }
        }
    }
}

}  // namespace tf_shim

inline void __syncthreads() { tf_shim::Block::current_block->barrier(); }

inline int __dp4a(int a, int b, int c) {
    for (int byte = 0; byte < 4; ++byte) {
        c += static_cast<int8_t>(a >> (8 * byte)) * static_cast<int8_t>(b >> (8 * byte));
    }
    return c;
}

template <class T>
inline T __ldg(const T *address) {
    return *address;
}
