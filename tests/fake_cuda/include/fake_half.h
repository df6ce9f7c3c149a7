// __half and __nv_bfloat16: stored as 16 bits, computed in float and rounded to nearest, ties to even.
#pragma once

inline float fake_half_to_float(unsigned short h) {
  unsigned sign = (unsigned)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {
    float value = (float)mantissa * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
}
inline unsigned short fake_float_to_half(float f) {
  unsigned bits = __float_as_uint(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000u) return 0x7fff;
  if (rest >= 0x477ff000u) return (unsigned short)(sign | 0x7c00);
  if (rest < 0x38800000u) {
    float scaled = __uint_as_float(rest) * 16777216.0f; // of 2^-24
    return (unsigned short)(sign | (unsigned)nearbyintf(scaled));
  }
  unsigned rounded = rest + 0xfff + (rest >> 13 & 1);
  return (unsigned short)(sign | (rounded - 0x38000000u) >> 13);
}
inline unsigned short fake_double_to_half(double d) {
  float f = (float)d; // rounded to odd first, so that rounding twice is rounding once
  unsigned bits = __float_as_uint(f);
  if ((double)f != d && d == d && f - f == 0 && !(bits & 1)) {
    bool above = (f < 0 ? -(double)f : (double)f) > (d < 0 ? -d : d);
    bits = above ? bits - 1 : bits + 1;
  }
  return fake_float_to_half(__uint_as_float(bits));
}
inline float fake_bfloat_to_float(unsigned short h) { return __uint_as_float((unsigned)h << 16); }
inline unsigned short fake_float_to_bfloat(float f) {
  unsigned bits = __float_as_uint(f);
  if ((bits & 0x7fffffff) > 0x7f800000u) return 0x7fff;
  return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline unsigned short fake_double_to_bfloat(double d) {
  float f = (float)d;
  unsigned bits = __float_as_uint(f);
  if ((double)f != d && d == d && f - f == 0 && !(bits & 1)) {
    bool above = (f < 0 ? -(double)f : (double)f) > (d < 0 ? -d : d);
    bits = above ? bits - 1 : bits + 1;
  }
  return fake_float_to_bfloat(__uint_as_float(bits));
}

#define FAKE_SIXTEEN_BITS(type, raw, to, from, from_double)                                                           \
  struct raw { unsigned short x; };                                                                                   \
  struct type {                                                                                                       \
    unsigned short bits;                                                                                              \
    type() = default;                                                                                                 \
    type(float f) : bits(from(f)) {}                                                                                  \
    type(double d) : bits(from_double(d)) {}                                                                          \
    type(int i) : bits(from_double(i)) {}                                                                             \
    type(unsigned i) : bits(from_double(i)) {}                                                                        \
    type(long i) : bits(from((float)i)) {}                                                                            \
    type(long long i) : bits(from((float)i)) {}                                                                       \
    type(unsigned long i) : bits(from((float)i)) {}                                                                   \
    type(unsigned long long i) : bits(from((float)i)) {}                                                              \
    type(raw r) : bits(r.x) {}                                                                                        \
    operator float() const { return to(bits); }                                                                       \
    operator raw() const { return raw{bits}; }                                                                        \
    type &operator+=(type o) { return *this = type((float)*this + (float)o); }                                        \
    type &operator-=(type o) { return *this = type((float)*this - (float)o); }                                        \
    type &operator*=(type o) { return *this = type((float)*this * (float)o); }                                        \
    type &operator/=(type o) { return *this = type((float)*this / (float)o); }                                        \
  };                                                                                                                  \
  inline type operator+(type a, type b) { return type((float)a + (float)b); }                                         \
  inline type operator-(type a, type b) { return type((float)a - (float)b); }                                         \
  inline type operator*(type a, type b) { return type((float)a * (float)b); }                                         \
  inline type operator/(type a, type b) { return type((float)a / (float)b); }                                         \
  inline type operator-(type a) { return type(raw{(unsigned short)(a.bits ^ 0x8000)}); }                              \
  inline bool operator<(type a, type b) { return (float)a < (float)b; }                                               \
  inline bool operator>(type a, type b) { return (float)a > (float)b; }                                               \
  inline bool operator<=(type a, type b) { return (float)a <= (float)b; }                                             \
  inline bool operator>=(type a, type b) { return (float)a >= (float)b; }                                             \
  inline bool operator==(type a, type b) { return (float)a == (float)b; }                                             \
  inline bool operator!=(type a, type b) { return (float)a != (float)b; }                                             \
  inline type __hadd(type a, type b) { return a + b; }                                                                \
  inline type __hsub(type a, type b) { return a - b; }                                                                \
  inline type __hmul(type a, type b) { return a * b; }                                                                \
  inline type __hdiv(type a, type b) { return a / b; }                                                                \
  inline type __hneg(type a) { return -a; }                                                                           \
  inline type __habs(type a) { return type(raw{(unsigned short)(a.bits & 0x7fff)}); }                                 \
  inline type __hfma(type a, type b, type c) { return type(fmaf(a, b, c)); }                                          \
  inline type __hmax(type a, type b) { return type(fmaxf(a, b)); }                                                    \
  inline type __hmin(type a, type b) { return type(fminf(a, b)); }                                                    \
  inline bool __hlt(type a, type b) { return a < b; }                                                                 \
  inline bool __hgt(type a, type b) { return a > b; }                                                                 \
  inline bool __heq(type a, type b) { return a == b; }                                                                \
  inline bool __hisnan(type a) { return (float)a != (float)a; }

FAKE_SIXTEEN_BITS(__half, __half_raw, fake_half_to_float, fake_float_to_half, fake_double_to_half)
FAKE_SIXTEEN_BITS(__nv_bfloat16, __nv_bfloat16_raw, fake_bfloat_to_float, fake_float_to_bfloat, fake_double_to_bfloat)
typedef __half half;
typedef __nv_bfloat16 nv_bfloat16;

inline __half __float2half(float f) { return __half(f); }
inline __half __float2half_rn(float f) { return __half(f); }
inline __half __double2half(double d) { return __half(d); }
inline float __half2float(__half h) { return h; }
inline __half __ushort_as_half(unsigned short x) { return __half(__half_raw{x}); }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline __nv_bfloat16 __float2bfloat16(float f) { return __nv_bfloat16(f); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
inline __nv_bfloat16 __double2bfloat16(double d) { return __nv_bfloat16(d); }
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return __nv_bfloat16(__nv_bfloat16_raw{x}); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }

struct __attribute__((aligned(4))) __half2 { __half x, y; };
struct __attribute__((aligned(4))) __nv_bfloat162 { __nv_bfloat16 x, y; };
typedef __half2 half2;
typedef __nv_bfloat162 nv_bfloat162;
inline float2 __half22float2(__half2 h) { return {h.x, h.y}; }
inline __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
inline __half2 __float22half2_rn(float2 f) { return {__half(f.x), __half(f.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 h) { return {h.x, h.y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__nv_bfloat16(a), __nv_bfloat16(b)}; }
