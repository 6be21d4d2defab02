"""The memory protection unit around a kernel's tensors: a byte read beside one stops the firmware.

Armv8-M's unit (Armv8-M ARM D1.2, PMSAv8) protects blocks of 32 bytes. Every tensor of a call,
constants too, lies in memory of its own that ends with such a block wherever its size is a multiple
of 16; inputs and constants cannot be written. Code, stack and the timer stay in reach, everything
between the tensors is out of it. A HardFault, in which the unit is off, says "fault" and ends.
"""

from __future__ import annotations

GUARD_CODE = """\
#define MPU(offset) (*(volatile uint32_t *)(0xe000ed90u + (offset)))
static unsigned regions;
static void region(uint32_t begin, uint32_t end, uint32_t access)
{
    MPU(0x08) = regions++;
    MPU(0x0c) = (begin & ~31u) | access << 1;
    MPU(0x10) = ((end - 1) & ~31u) | 1;
}
/* access: 0 read and write, 2 read; executable alike */
static void guard(const tensor_t *tensors, const uint32_t *arguments, unsigned last)
{
    regions = 0;
    MPU(0x30) = 0xff;
    region(0, 0x80000, 2);
    region(0x20000000, (uint32_t)memory, 0);
    region((uint32_t)memory + sizeof memory, 0x20040000, 0);
    region(0x40000000, 0x50000000, 0);
    for (unsigned k = 0; k <= last; k++)
        if (tensors[k].size)
            region(arguments[k], arguments[k] + tensors[k].size, tensors[k].source ? 2 : 0);
    while (regions < (MPU(0) >> 8 & 255)) { MPU(0x08) = regions++; MPU(0x10) = 0; }
    MPU(0x04) = 1;
    __asm__ volatile("dsb\\n isb" ::: "memory");
}
static void unguard(void)
{
    MPU(0x04) = 0;
    __asm__ volatile("dsb\\n isb" ::: "memory");
}
void hard_fault(void)
{
    text("fault\\n");
    finish();
}
"""

NO_GUARD_CODE = """\
static void guard(const tensor_t *tensors, const uint32_t *arguments, unsigned last)
{
    (void)tensors; (void)arguments; (void)last;
}
static void unguard(void) { }
void hard_fault(void) { text("fault\\n"); finish(); }
"""
