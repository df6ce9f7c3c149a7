// Integers' and bits' intrinsics: CUDA Math API, "Integer Intrinsics", "Type Casting Intrinsics", "SIMD Intrinsics".
#pragma once

#include <string.h>

namespace cuda_on_cpu {

template <class To, class From>
static inline To bits_as(From x) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}

}  // namespace cuda_on_cpu

static inline int __float_as_int(float x) {
    return cuda_on_cpu::bits_as<int>(x);
}
static inline float __int_as_float(int x) {
    return cuda_on_cpu::bits_as<float>(x);
}
static inline unsigned __float_as_uint(float x) {
    return cuda_on_cpu::bits_as<unsigned>(x);
}
static inline float __uint_as_float(unsigned x) {
    return cuda_on_cpu::bits_as<float>(x);
}
static inline long long __double_as_longlong(double x) {
    return cuda_on_cpu::bits_as<long long>(x);
}
static inline double __longlong_as_double(long long x) {
    return cuda_on_cpu::bits_as<double>(x);
}
static inline unsigned long long __double_as_ulonglong(double x) {
    return cuda_on_cpu::bits_as<unsigned long long>(x);
}
static inline double __ulonglong_as_double(unsigned long long x) {
    return cuda_on_cpu::bits_as<double>(x);
}
static inline int __double2hiint(double x) {
    return (int)(__double_as_longlong(x) >> 32);
}
static inline int __double2loint(double x) {
    return (int)__double_as_longlong(x);
}
static inline double __hiloint2double(int high, int low) {
    return __ulonglong_as_double((unsigned long long)(unsigned)high << 32 | (unsigned)low);
}

static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __clzll(long long x) {
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
static inline unsigned __brev(unsigned x) {
    x = __builtin_bswap32(x);
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    return (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
}
static inline unsigned long long __brevll(unsigned long long x) {
    return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selectors) {
    const unsigned long long all = (unsigned long long)y << 32 | x;
    unsigned made = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned selector = selectors >> i * 4 & 15;
        unsigned byte = (unsigned)(all >> (selector & 7) * 8) & 255;
        // bit 3: the byte's sign
        if (selector & 8) byte = byte & 128 ? 255 : 0;
        made |= byte << i * 8;
    }
    return made;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return (unsigned)((((unsigned long long)high << 32 | low) << (by & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
static inline unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned by) {
    return by >= 32 ? low : __funnelshift_l(low, high, by);
}
static inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned by) {
    return by >= 32 ? high : __funnelshift_r(low, high, by);
}

static inline int __mulhi(int a, int b) {
    return (int)((long long)a * b >> 32);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((unsigned long long)a * b >> 32);
}
static inline long long __mul64hi(long long a, long long b) {
    return (long long)((__int128)a * b >> 64);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __mul24(int a, int b) {
    return (a << 8 >> 8) * (b << 8 >> 8);
}
static inline unsigned __umul24(unsigned a, unsigned b) {
    return (a & 0xffffff) * (b & 0xffffff);
}
static inline unsigned __sad(int a, int b, unsigned c) {
    return (unsigned)(a < b ? (long long)b - a : (long long)a - b) + c;
}
static inline unsigned __usad(unsigned a, unsigned b, unsigned c) {
    return (a < b ? b - a : a - b) + c;
}
static inline int __hadd(int a, int b) {
    return (int)(((long long)a + b) >> 1);
}
static inline int __rhadd(int a, int b) {
    return (int)(((long long)a + b + 1) >> 1);
}
static inline unsigned __uhadd(unsigned a, unsigned b) {
    return (unsigned)(((unsigned long long)a + b) >> 1);
}
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i) {
        c += (int)(signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
    }
    return c;
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; ++i) {
        c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
    }
    return c;
}

namespace cuda_on_cpu {

// Of each T of a word.
template <class T, class Function>
static inline unsigned each(unsigned a, unsigned b, Function function) {
    T x[4 / sizeof(T)], y[4 / sizeof(T)];
    memcpy(x, &a, sizeof a);
    memcpy(y, &b, sizeof b);
    for (size_t i = 0; i < 4 / sizeof(T); ++i) {
        x[i] = (T)function(x[i], y[i]);
    }
    memcpy(&a, x, sizeof a);
    return a;
}

template <class T>
static inline unsigned each_min(unsigned a, unsigned b) {
    return each<T>(a, b, [](T x, T y) { return x < y ? x : y; });
}
template <class T>
static inline unsigned each_max(unsigned a, unsigned b) {
    return each<T>(a, b, [](T x, T y) { return x > y ? x : y; });
}
template <class T>
static inline unsigned each_sum(unsigned a, unsigned b) {
    return each<T>(a, b, [](T x, T y) { return x + y; });
}
template <class T>
static inline unsigned each_difference(unsigned a, unsigned b) {
    return each<T>(a, b, [](T x, T y) { return x - y; });
}
template <class T>
static inline unsigned each_equal(unsigned a, unsigned b) {
    return each<T>(a, b, [](T x, T y) { return x == y ? -1 : 0; });
}

}  // namespace cuda_on_cpu

static inline unsigned __vminu2(unsigned a, unsigned b) {
    return cuda_on_cpu::each_min<unsigned short>(a, b);
}
static inline unsigned __vmins2(unsigned a, unsigned b) {
    return cuda_on_cpu::each_min<short>(a, b);
}
static inline unsigned __vminu4(unsigned a, unsigned b) {
    return cuda_on_cpu::each_min<unsigned char>(a, b);
}
static inline unsigned __vmins4(unsigned a, unsigned b) {
    return cuda_on_cpu::each_min<signed char>(a, b);
}
static inline unsigned __vmaxu2(unsigned a, unsigned b) {
    return cuda_on_cpu::each_max<unsigned short>(a, b);
}
static inline unsigned __vmaxs2(unsigned a, unsigned b) {
    return cuda_on_cpu::each_max<short>(a, b);
}
static inline unsigned __vmaxu4(unsigned a, unsigned b) {
    return cuda_on_cpu::each_max<unsigned char>(a, b);
}
static inline unsigned __vmaxs4(unsigned a, unsigned b) {
    return cuda_on_cpu::each_max<signed char>(a, b);
}
static inline unsigned __vadd2(unsigned a, unsigned b) {
    return cuda_on_cpu::each_sum<unsigned short>(a, b);
}
static inline unsigned __vadd4(unsigned a, unsigned b) {
    return cuda_on_cpu::each_sum<unsigned char>(a, b);
}
static inline unsigned __vsub2(unsigned a, unsigned b) {
    return cuda_on_cpu::each_difference<unsigned short>(a, b);
}
static inline unsigned __vsub4(unsigned a, unsigned b) {
    return cuda_on_cpu::each_difference<unsigned char>(a, b);
}
static inline unsigned __vcmpeq2(unsigned a, unsigned b) {
    return cuda_on_cpu::each_equal<unsigned short>(a, b);
}
static inline unsigned __vcmpeq4(unsigned a, unsigned b) {
    return cuda_on_cpu::each_equal<unsigned char>(a, b);
}
