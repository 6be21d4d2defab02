/*
 * TVM's LLVM calls arithmetic helpers by their libgcc names; zig's compiler_rt has the Arm EABI ones
 * only (__aeabi_lmul for __muldi3, ...). Each helper here is the plain C operation, which this
 * compiler turns into an instruction or the EABI call. Unused ones are dropped by the linker.
 * Elsewhere compiler_rt has them by these very names, and only rounding is missing.
 */
#include <stdint.h>

#define BINARY(name, type, operator)                                                               \
    type name(type a, type b);                                                                     \
    type name(type a, type b)                                                                      \
    {                                                                                              \
        return a operator b;                                                                       \
    }
#define SHIFT(name, type, operator)                                                                \
    type name(type a, int b);                                                                      \
    type name(type a, int b)                                                                       \
    {                                                                                              \
        return a operator b;                                                                       \
    }
#define CONVERT(name, from, to)                                                                    \
    to name(from a);                                                                               \
    to name(from a)                                                                                \
    {                                                                                              \
        return (to)a;                                                                              \
    }
/* Sign of a - b; `unordered` is the answer when either is NaN. */
#define COMPARE(name, type, unordered)                                                             \
    int name(type a, type b);                                                                      \
    int name(type a, type b)                                                                       \
    {                                                                                              \
        return a < b ? -1 : a == b ? 0 : a > b ? 1 : (unordered);                                  \
    }
#define UNORDERED(name, type)                                                                      \
    int name(type a, type b);                                                                      \
    int name(type a, type b)                                                                       \
    {                                                                                              \
        return a != a || b != b;                                                                   \
    }
/* Halves go to even: adding 2^bits pushes the fraction out under the default rounding mode. */
#define NEAREST(name, type, two_to_the_bits)                                                       \
    type name(type a);                                                                             \
    type name(type a)                                                                              \
    {                                                                                              \
        const type big = (two_to_the_bits);                                                        \
        if (a >= big || a <= -big || a != a)                                                       \
            return a;                                                                              \
        volatile type shifted = a < 0 ? a - big : a + big;                                         \
        return a < 0 ? shifted + big : shifted - big;                                              \
    }

#if defined(__arm__)
#if defined(__ARM_ARCH_6M__)
/* No 64-bit multiplier: every requantization calls this one. The 16-bit halves of the low words
 * are multiplied crosswise; the high words only matter modulo 2^32. */
__attribute__((naked)) int64_t __muldi3(int64_t a, int64_t b);
__attribute__((naked)) int64_t __muldi3(int64_t a, int64_t b)
{
    __asm__ volatile("push {r4, r5}\n"
                     "muls r1, r2\n" /* a high * b low */
                     "muls r3, r0\n" /* a low * b high */
                     "adds r1, r1, r3\n"
                     "uxth r3, r0\n"
                     "lsrs r0, r0, #16\n"
                     "uxth r4, r2\n"
                     "lsrs r2, r2, #16\n"
                     "mov r5, r3\n"
                     "muls r5, r4\n"
                     "muls r4, r0\n"
                     "muls r3, r2\n"
                     "muls r0, r2\n"
                     "adds r1, r1, r0\n"
                     "lsls r0, r4, #16\n"
                     "lsrs r4, r4, #16\n"
                     "adds r0, r0, r5\n"
                     "adcs r1, r4\n"
                     "lsls r4, r3, #16\n"
                     "lsrs r3, r3, #16\n"
                     "adds r0, r0, r4\n"
                     "adcs r1, r3\n"
                     "pop {r4, r5}\n"
                     "bx lr\n");
}
#else
BINARY(__muldi3, int64_t, *)
#endif
BINARY(__divsi3, int32_t, /)
BINARY(__modsi3, int32_t, %)
BINARY(__udivsi3, uint32_t, /)
BINARY(__umodsi3, uint32_t, %)
BINARY(__divdi3, int64_t, /)
BINARY(__moddi3, int64_t, %)
BINARY(__udivdi3, uint64_t, /)
BINARY(__umoddi3, uint64_t, %)
SHIFT(__ashldi3, int64_t, <<)
SHIFT(__ashrdi3, int64_t, >>)
SHIFT(__lshrdi3, uint64_t, >>)

#define FLOATING(suffix, type)                                                                     \
    BINARY(__add##suffix##3, type, +)                                                              \
    BINARY(__sub##suffix##3, type, -)                                                              \
    BINARY(__mul##suffix##3, type, *)                                                              \
    BINARY(__div##suffix##3, type, /)                                                              \
    COMPARE(__lt##suffix##2, type, 1)                                                              \
    COMPARE(__le##suffix##2, type, 1)                                                              \
    COMPARE(__eq##suffix##2, type, 1)                                                              \
    COMPARE(__ne##suffix##2, type, 1)                                                              \
    COMPARE(__gt##suffix##2, type, -1)                                                             \
    COMPARE(__ge##suffix##2, type, -1)                                                             \
    UNORDERED(__unord##suffix##2, type)                                                            \
    CONVERT(__fix##suffix##si, type, int32_t)                                                      \
    CONVERT(__fix##suffix##di, type, int64_t)                                                      \
    CONVERT(__fixuns##suffix##si, type, uint32_t)                                                  \
    CONVERT(__fixuns##suffix##di, type, uint64_t)                                                  \
    CONVERT(__floatsi##suffix, int32_t, type)                                                      \
    CONVERT(__floatdi##suffix, int64_t, type)

FLOATING(sf, float)
FLOATING(df, double)
CONVERT(__extendsfdf2, float, double)
CONVERT(__truncdfsf2, double, float)
CONVERT(__floatunsisf, uint32_t, float)
CONVERT(__floatunsidf, uint32_t, double)
CONVERT(__floatundisf, uint64_t, float)
CONVERT(__floatundidf, uint64_t, double)
#endif

NEAREST(nearbyintf, float, 8388608.0f)
NEAREST(nearbyint, double, 4503599627370496.0)
