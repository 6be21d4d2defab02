/*
 * What every core does between reset and main(): stack paint, .data copied, .bss cleared.
 * Knows where the stack is, for every bare-metal port.
 *
 * The symbols come from memory.ld.j2; the core's own file calls this with its stack set up.
 */
#include <stdint.h>

#include "port.h"

extern uint32_t edge_data_load[], edge_data_begin[], edge_data_end[];
extern uint32_t edge_bss_begin[], edge_bss_end[];
extern uint32_t edge_arena_begin[], edge_arena_end[];
extern uint32_t edge_stack_limit[], edge_stack_top[];
#ifdef PORT_MORE_ARENAS
/* Begin and end of each further arena. */
extern uint32_t *const edge_more_arenas_begin[], *const edge_more_arenas_end[];
#endif

int main(void);
__attribute__((noreturn)) void edge_start(void);

#if defined(__riscv)
#define READ_STACK_POINTER "mv %0, sp"
#else
#define READ_STACK_POINTER "mov %0, sp"
#endif

static void clear(uint32_t *from, uint32_t *to)
{
    while (from < to)
        *from++ = 0;
}

__attribute__((noreturn, used)) void edge_start(void)
{
    /* Everything from the end of the variables up to this frame is free stack. */
    uint32_t *stack;
    __asm__ volatile(READ_STACK_POINTER : "=r"(stack));
    for (uint32_t *word = edge_stack_limit; word < stack; word++)
        *word = PORT_STACK_PAINT;

    const uint32_t *load = edge_data_load;
    for (uint32_t *word = edge_data_begin; word < edge_data_end; word++)
        *word = *load++;
    clear(edge_bss_begin, edge_bss_end);
    clear(edge_arena_begin, edge_arena_end);
#ifdef PORT_MORE_ARENAS
    for (uint32_t *const *arena = edge_more_arenas_begin; arena < edge_more_arenas_end; arena += 2)
        clear(arena[0], arena[1]);
#endif
    main();
    for (;;) {
    }
}

void port_stack(const uint32_t **limit, const uint32_t **top)
{
    *limit = edge_stack_limit;
    *top = edge_stack_top;
}
