/*
 * Cortex-M start-up: vector table, stack paint, FPU or MVE on, .data copied, .bss cleared, main().
 *
 * The symbols come from memory.ld.j2. Interrupts stay off: the runner polls.
 */
#include <stdint.h>

extern uint32_t edge_data_load[], edge_data_begin[], edge_data_end[];
extern uint32_t edge_bss_begin[], edge_bss_end[];
extern uint32_t edge_arena_begin[], edge_arena_end[];
extern uint32_t edge_stack_limit[], edge_stack_top[];

int main(void);
void Reset_Handler(void);
void Default_Handler(void);

/* What an untouched word of stack holds; `edge stack` counts from the lowest word that differs. */
#define EDGE_STACK_PAINT 0xC5C5C5C5u

/* Coprocessor Access Control Register: Armv7-M ARM B3.2.20, Armv8-M ARM D1.2.13. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_CP10_CP11_FULL (0xFu << 20)

static void clear(uint32_t *from, uint32_t *to)
{
    while (from < to)
        *from++ = 0;
}

__attribute__((noreturn, used)) void Reset_Handler(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= CPACR_CP10_CP11_FULL;
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    /* Everything from the end of the variables up to this frame is free stack. */
    uint32_t *stack;
    __asm__ volatile("mov %0, sp" : "=r"(stack));
    for (uint32_t *word = edge_stack_limit; word < stack; word++)
        *word = EDGE_STACK_PAINT;

    const uint32_t *load = edge_data_load;
    for (uint32_t *word = edge_data_begin; word < edge_data_end; word++)
        *word = *load++;
    clear(edge_bss_begin, edge_bss_end);
    clear(edge_arena_begin, edge_arena_end);
    main();
    for (;;) {
    }
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
