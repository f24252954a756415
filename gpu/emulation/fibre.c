/* Switching between fibres: a few instructions on x86-64 and AArch64, ucontext elsewhere. */
#include "gpu/emulation/emulator.h"

#include <string.h>

#if defined __x86_64__
/* Saves what a call must preserve on the stack it leaves, and takes up the other stack. */
__asm__(".text\n.globl mbl_emu_switch\n.type mbl_emu_switch,@function\nmbl_emu_switch:\n"
        "endbr64\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
        "ret\n"
        ".size mbl_emu_switch,.-mbl_emu_switch\n");

void *mbl_emu_context(char *stack, size_t bytes, void (*enter)(void)) {
    /* Entered by `ret`: the stack pointer is then 8 below a multiple of 16, as after a call. */
    uintptr_t top = ((uintptr_t)stack + bytes) & ~(uintptr_t)63;
    uintptr_t *sp = (uintptr_t *)top - 8;
    memset(sp, 0, 8 * sizeof *sp);
    sp[6] = (uintptr_t)enter; /* behind the six registers */
    return sp;
}
#elif defined __aarch64__
__asm__(".text\n.globl mbl_emu_switch\n.type mbl_emu_switch,%function\nmbl_emu_switch:\n"
        "sub sp, sp, #160\n"
        "stp x19, x20, [sp, #0]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
        "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\n"
        "stp d14, d15, [sp, #144]\n"
        "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
        "ldp x19, x20, [sp, #0]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\n"
        "ldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\n"
        "ldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\nret\n"
        ".size mbl_emu_switch,.-mbl_emu_switch\n");

void *mbl_emu_context(char *stack, size_t bytes, void (*enter)(void)) {
    uintptr_t top = ((uintptr_t)stack + bytes) & ~(uintptr_t)63;
    uintptr_t *sp = (uintptr_t *)(top - 160);
    memset(sp, 0, 160);
    sp[11] = (uintptr_t)enter; /* x30 */
    return sp;
}
#else
#include <ucontext.h>

/* A context is a ucontext_t: at the low end of its stack for one that has not run, then where it stopped. */
void mbl_emu_switch(void **save, void *load) {
    ucontext_t here;
    *save = &here;
    swapcontext(&here, load);
}

void *mbl_emu_context(char *stack, size_t bytes, void (*enter)(void)) {
    ucontext_t *context = (ucontext_t *)(void *)stack;
    size_t used = (sizeof *context + 63) & ~(size_t)63;
    getcontext(context);
    context->uc_stack.ss_sp = stack + used;
    context->uc_stack.ss_size = bytes - used;
    context->uc_link = NULL;
    makecontext(context, enter, 0);
    return context;
}
#endif
