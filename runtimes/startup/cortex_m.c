/*
 * Cortex-M start-up: vector table, FPU or MVE on. Interrupts stay off: the runner polls.
 *
 * A port whose folder has a port_start.h has port_start() called before anything touches a
 * variable, for clocks, caches and memories that are off after reset.
 */
#if defined(__arm__)
#include <stdint.h>
#if __has_include("port_start.h")
#include "port_start.h"
#define PORT_STARTS
#endif

extern uint32_t edge_stack_top[];

__attribute__((noreturn)) void edge_start(void);
void Reset_Handler(void);
void Default_Handler(void);

/* Coprocessor Access Control Register: Armv7-M ARM B3.2.20, Armv8-M ARM D1.2.13. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_CP10_CP11_FULL (0xFu << 20)

#ifdef PORT_STARTS
/* Vector Table Offset Register: Armv7-M ARM B3.2.5. Not every port with a start has flash at 0. */
#define VTOR (*(volatile uint32_t *)0xE000ED08u)
extern const uint32_t edge_vectors[];
#endif

__attribute__((noreturn, used)) void Reset_Handler(void)
{
#ifdef PORT_STARTS
    VTOR = (uint32_t)edge_vectors;
#endif
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= CPACR_CP10_CP11_FULL;
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
#ifdef PORT_STARTS
    port_start();
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
