/*
 * RISC-V start-up in machine mode: a core begins at the start of the flash region, where the linker
 * script puts .vectors. Interrupts stay off: the runner polls.
 */
#if defined(__riscv)

void Reset_Handler(void);
void Default_Handler(void);

/* gp is loaded unrelaxed: a relaxed load would be relative to gp itself. */
__attribute__((naked, section(".vectors"), used)) void Reset_Handler(void)
{
    __asm__ volatile(".option push\n"
                     ".option norelax\n"
                     ".option arch, +zicsr\n"
                     "la gp, __global_pointer$\n"
                     "la sp, edge_stack_top\n"
                     "la t0, Default_Handler\n"
                     "csrw mtvec, t0\n"
                     ".option pop\n"
                     "tail edge_start\n");
}

/* A trap stops here, where a debugger sees it; mcause and mepc say why and where. */
__attribute__((aligned(4), used)) void Default_Handler(void)
{
    for (;;) {
    }
}

#endif
