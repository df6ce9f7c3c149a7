// CUDA's built-in functions: loads, atomics, bits, mathematics, vectors.
#pragma once

template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *p; }
template <class T> T __ldca(const T *p) { return *p; }
template <class T> void __stcs(T *p, T v) { *p = v; }
template <class T> void __stcg(T *p, T v) { *p = v; }
template <class T> void __stwt(T *p, T v) { *p = v; }

// a block's threads take turns, so what follows needs no care
#define FAKE_ATOMIC(name, expression)                                                                                 \
  template <class T, class V> T name(T *p, V value) {                                                                 \
    T old = *p, v = (T)value;                                                                                         \
    (void)v;                                                                                                          \
    *p = expression;                                                                                                  \
    return old;                                                                                                       \
  }                                                                                                                   \
  template <class T, class V> T name##_block(T *p, V value) { return name(p, value); }                                \
  template <class T, class V> T name##_system(T *p, V value) { return name(p, value); }
FAKE_ATOMIC(atomicAdd, old + v)
FAKE_ATOMIC(atomicSub, old - v)
FAKE_ATOMIC(atomicMin, v < old ? v : old)
FAKE_ATOMIC(atomicMax, old < v ? v : old)
FAKE_ATOMIC(atomicExch, v)
FAKE_ATOMIC(atomicAnd, old &v)
FAKE_ATOMIC(atomicOr, old | v)
FAKE_ATOMIC(atomicXor, old ^ v)
FAKE_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
FAKE_ATOMIC(atomicDec, (old == 0 || old > v) ? v : old - 1)
template <class T, class A, class B> T atomicCAS(T *p, A compare, B value) {
  T old = *p;
  if (old == (T)compare) *p = (T)value;
  return old;
}

template <class T> inline T fake_bits_to(const void *from) {
  T to;
  std::memcpy(&to, from, sizeof(T));
  return to;
}
inline int __float_as_int(float x) { return fake_bits_to<int>(&x); }
inline unsigned __float_as_uint(float x) { return fake_bits_to<unsigned>(&x); }
inline float __int_as_float(int x) { return fake_bits_to<float>(&x); }
inline float __uint_as_float(unsigned x) { return fake_bits_to<float>(&x); }
inline long long __double_as_longlong(double x) { return fake_bits_to<long long>(&x); }
inline double __longlong_as_double(long long x) { return fake_bits_to<double>(&x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline int __mul24(int a, int b) { return a * b; }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
  unsigned long long both = (unsigned long long)b << 32 | a;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) r |= (unsigned)(both >> 8 * (s >> 4 * i & 7) & 0xff) << 8 * i;
  return r;
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
  return (unsigned)((((unsigned long long)hi << 32 | lo) << (n & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
  return (unsigned)(((unsigned long long)hi << 32 | lo) >> (n & 31));
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
  return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 4; i++) c += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
  return c;
}

// to integers: out of range saturates, NaN is 0
template <class I, class F> inline I fake_to_integer(F x) {
  if (x != x) return 0;
  constexpr bool is_signed = std::is_signed<I>::value;
  constexpr I high = is_signed ? (I)(((unsigned long long)1 << (sizeof(I) * 8 - 1)) - 1) : (I)~(I)0;
  constexpr I low = is_signed ? (I)(-high - 1) : (I)0;
  if (x >= (F)high) return high;
  if (x <= (F)low) return low;
  return (I)x;
}
inline int __float2int_rn(float x) { return fake_to_integer<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return fake_to_integer<int>(x); }
inline int __float2int_rd(float x) { return fake_to_integer<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return fake_to_integer<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) { return fake_to_integer<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rz(float x) { return fake_to_integer<unsigned>(x); }
inline long long __float2ll_rn(float x) { return fake_to_integer<long long>(std::nearbyint(x)); }
inline long long __float2ll_rz(float x) { return fake_to_integer<long long>(x); }
inline unsigned long long __float2ull_rz(float x) { return fake_to_integer<unsigned long long>(x); }
inline int __double2int_rn(double x) { return fake_to_integer<int>(std::nearbyint(x)); }
inline int __double2int_rz(double x) { return fake_to_integer<int>(x); }
inline unsigned __double2uint_rz(double x) { return fake_to_integer<unsigned>(x); }
inline long long __double2ll_rn(double x) { return fake_to_integer<long long>(std::nearbyint(x)); }
inline long long __double2ll_rz(double x) { return fake_to_integer<long long>(x); }
inline unsigned long long __double2ull_rz(double x) { return fake_to_integer<unsigned long long>(x); }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __ll2float_rn(long long x) { return (float)x; }
inline double __int2double_rn(int x) { return x; }
inline float __double2float_rn(double x) { return (float)x; }

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline double rcbrt(double x) { return 1.0 / cbrt(x); }
inline float exp10f(float x) { return powf(10.0f, x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
inline float sinpif(float x) { return sinf(3.14159265358979f * x); }
inline float cospif(float x) { return cosf(3.14159265358979f * x); }
inline void sincosf(float x, float *s, float *c, int) { *s = sinf(x), *c = cosf(x); }
using std::abs;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
template <class A, class B> inline typename std::common_type<A, B>::type min(A a, B b) {
  using T = typename std::common_type<A, B>::type;
  if constexpr (std::is_floating_point<T>::value) return std::fmin((T)a, (T)b);
  return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> inline typename std::common_type<A, B>::type max(A a, B b) {
  using T = typename std::common_type<A, B>::type;
  if constexpr (std::is_floating_point<T>::value) return std::fmax((T)a, (T)b);
  return (T)a < (T)b ? (T)b : (T)a;
}

#define FAKE_VECTOR(type, name, align2, align4)                                                                       \
  struct name##1 { type x; };                                                                                         \
  struct __attribute__((aligned(align2))) name##2 { type x, y; };                                                     \
  struct name##3 { type x, y, z; };                                                                                   \
  struct __attribute__((aligned(align4))) name##4 { type x, y, z, w; };                                               \
  inline name##1 make_##name##1(type x) { return {x}; }                                                               \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                    \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                         \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
FAKE_VECTOR(signed char, char, 2, 4)
FAKE_VECTOR(unsigned char, uchar, 2, 4)
FAKE_VECTOR(short, short, 4, 8)
FAKE_VECTOR(unsigned short, ushort, 4, 8)
FAKE_VECTOR(int, int, 8, 16)
FAKE_VECTOR(long long, longlong, 16, 16)
FAKE_VECTOR(unsigned long long, ulonglong, 16, 16)
FAKE_VECTOR(float, float, 8, 16)
FAKE_VECTOR(double, double, 16, 16)
struct uint1 { unsigned x; };
struct __attribute__((aligned(8))) uint2 { unsigned x, y; };
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
