/* The emulated half of gpu/kernel.h: CUDA's device names (include/cuda_runtime.h) and the macros. */
#ifndef MBL_GPU_EMULATION_KERNEL_H
#define MBL_GPU_EMULATION_KERNEL_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <tuple>
#include <type_traits>
#include <utility>

/* In builds with checks: stands for the kernel file, the same for both of its copies. */
#ifdef MBL_EMU_FILE
extern "C" const char MBL_EMU_FILE;
#endif
#ifndef MBL_EMU_QUICK
#define MBL_EMU_QUICK 0
#endif

namespace mbl_emu {

template <auto kernel> struct entry;

/* A kernel: one thread of it, with the arguments of a launch. */
template <class... P, void (*kernel)(P...)> struct entry<kernel> {
    typedef std::tuple<P...> arguments_t;
    static_assert((std::is_trivially_copyable_v<P> && ...), "a kernel's parameters are copied as bytes");

    template <std::size_t... i>
    static inline __attribute__((always_inline)) void spread(const arguments_t &arguments,
                                                             std::index_sequence<i...>) {
        kernel(std::get<i>(arguments)...);
    }
    static void run(const void *arguments) {
        spread(*static_cast<const arguments_t *>(arguments), std::index_sequence_for<P...>());
    }
    /* Names the kernel, templates' arguments included. */
    static const char *name() {
        return __PRETTY_FUNCTION__;
    }
#if MBL_EMU_QUICK
    static mbl_emu_quick_t quick;
    static const bool known; /* to the checked copy, when the program has started */
#else
    static const mbl_emu_quick_t *quick; /* once looked for */
#endif
};

#if MBL_EMU_QUICK
template <class... P, void (*kernel)(P...)>
mbl_emu_quick_t entry<kernel>::quick = {&MBL_EMU_FILE, nullptr, run, nullptr};
template <class... P, void (*kernel)(P...)>
const bool entry<kernel>::known = mbl_emu_quick_add(&quick, name());

/* The checked copy launches: this only makes sure that the kernel is there. */
template <auto kernel, class... A> inline void launch(A &&...) {
    (void)entry<kernel>::known;
}
#else
template <class... P, void (*kernel)(P...)> const mbl_emu_quick_t *entry<kernel>::quick;

/* Arguments are converted to the kernel's parameters here, once, as a launch does. */
template <auto kernel, class... P, class... A>
inline void launch_with(const char *name, void (*)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                        cudaStream_t stream, A &&...a) {
    static_assert(sizeof...(P) == sizeof...(A),
                  "arguments of the launch and parameters of the kernel differ");
    typedef entry<kernel> it;
    const std::tuple<P...> arguments(static_cast<P>(a)...);
    mbl_emu_launch_t what{name,        reinterpret_cast<const void *>(kernel),
                          it::run,     nullptr,
                          &arguments,  sizeof arguments,
                          grid,        block,
                          shared_bytes};
#ifdef MBL_EMU_FILE
    if (!it::quick)
        it::quick = mbl_emu_quick_of(&MBL_EMU_FILE, it::name());
    what.run_quick = it::quick ? it::quick->run : nullptr;
#endif
    (void)mbl_emu_launch(&what, stream); /* kept for cudaGetLastError, as in a launch with <<< >>> */
}
template <auto kernel, class... A> inline void launch(const char *name, A &&...a) {
    launch_with<kernel>(name, kernel, std::forward<A>(a)...);
}
#endif

} // namespace mbl_emu

#define MBL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                           \
    mbl_emu::launch<kernel>(#kernel, (grid), (block), (shared_bytes), (stream), __VA_ARGS__)
#define MBL_SHARED(T, name, count)                                                                           \
    static const char name##_site_ = 0;                                                                      \
    T(&name)[count] = *static_cast<T(*)[count]>(mbl_emu_shared(&name##_site_, #name, sizeof(T[count])))
#define MBL_SHARED_DYNAMIC(T, name) T *name = static_cast<T *>(mbl_emu_shared_dynamic(#name))
#define MBL_SHARED_ALLOW(kernel, bytes)                                                                      \
    cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),                                             \
                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))

#endif
