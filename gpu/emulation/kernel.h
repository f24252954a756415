/* The emulated half of gpu/kernel.h: CUDA's device names (include/cuda_runtime.h) and the macros. */
#ifndef MBL_GPU_EMULATION_KERNEL_H
#define MBL_GPU_EMULATION_KERNEL_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <tuple>
#include <type_traits>

namespace mbl_emu {

/* One thread of a kernel with the arguments of its launch. */
template <class... P> struct call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
    static void run(const void *self) {
        const call *c = static_cast<const call *>(self);
        std::apply(c->kernel, c->arguments);
    }
};

/* Arguments are converted to the kernel's parameters here, once, as a launch does. */
template <class... P, class... A>
inline void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, A &&...a) {
    static_assert(sizeof...(P) == sizeof...(A),
                  "arguments of the launch and parameters of the kernel differ");
    static_assert((std::is_trivially_copyable_v<P> && ...), "a kernel's parameters are copied as bytes");
    const call<P...> c{kernel, std::tuple<P...>(static_cast<P>(a)...)};
    const mbl_emu_launch_t what{
        name,        reinterpret_cast<const void *>(kernel), call<P...>::run, &c, sizeof c, grid, block,
        shared_bytes};
    (void)mbl_emu_launch(&what, stream); /* kept for cudaGetLastError, as in a launch with <<< >>> */
}

} // namespace mbl_emu

#define MBL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                           \
    mbl_emu::launch(#kernel, kernel, (grid), (block), (shared_bytes), (stream), __VA_ARGS__)
#define MBL_SHARED(T, name, count)                                                                           \
    static const char name##_site_ = 0;                                                                      \
    T(&name)[count] = *static_cast<T(*)[count]>(mbl_emu_shared(&name##_site_, #name, sizeof(T[count])))
#define MBL_SHARED_DYNAMIC(T, name) T *name = static_cast<T *>(mbl_emu_shared_dynamic(#name))
#define MBL_SHARED_ALLOW(kernel, bytes)                                                                      \
    cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),                                             \
                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))

#endif
