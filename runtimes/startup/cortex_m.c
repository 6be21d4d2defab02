/*
 * Cortex-M start-up: vector table, FPU or MVE on. Interrupts stay off: the runner polls.
 */
#if defined(__arm__)
#include <stdint.h>

extern uint32_t edge_stack_top[];

__attribute__((noreturn)) void edge_start(void);
void Reset_Handler(void);
void Default_Handler(void);

/* Coprocessor Access Control Register: Armv7-M ARM B3.2.20, Armv8-M ARM D1.2.13. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_CP10_CP11_FULL (0xFu << 20)

__attribute__((noreturn, used)) void Reset_Handler(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= CPACR_CP10_CP11_FULL;
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    edge_start();
}

/* A fault stops here, where a debugger or the virtual board sees it. */
__attribute__((used)) void Default_Handler(void)
{
    for (;;) {
    }
}

/* Kernels carry unwind tables that name these; nothing ever unwinds. */
void __aeabi_unwind_cpp_pr0(void);
void __aeabi_unwind_cpp_pr0(void)
{
}
void __aeabi_unwind_cpp_pr1(void);
void __aeabi_unwind_cpp_pr1(void)
{
}

typedef void (*vector_t)(void);

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *initial_stack;
    vector_t handlers[15];
} vectors = {
    edge_stack_top,
    {
        Reset_Handler,
        Default_Handler, /* NMI */
        Default_Handler, /* HardFault */
        Default_Handler, /* MemManage */
        Default_Handler, /* BusFault */
        Default_Handler, /* UsageFault */
        Default_Handler, /* SecureFault */
        0,
        0,
        0,
        Default_Handler, /* SVCall */
        Default_Handler, /* DebugMonitor */
        0,
        Default_Handler, /* PendSV */
        Default_Handler, /* SysTick */
    },
};

#endif
