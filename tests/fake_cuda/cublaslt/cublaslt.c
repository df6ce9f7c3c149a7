/* cuBLASLt's functions on host memory: descriptors are checked as the library checks them, products are made slowly.
 *
 * As with the library, descriptors take anything; what contradicts itself is refused when an algorithm is looked for or
 * run. An algorithm remembers the alignment that it was found for, and is refused other addresses. The workspace is
 * overwritten. With streams (fake_enqueue_with), a product is made when its stream comes to it, and in each replay.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 7, UNSUPPORTED = 15 };
enum { F32 = 0, F64 = 1, F16 = 2, I8 = 3, I32 = 10, BF16 = 14 };
enum { MOST_ALGORITHMS = 3 };

typedef struct { int magic; } Handle;
typedef struct { int compute, scale, transa, transb; uint32_t epilogue; const void *bias; int bias_type; } Desc;
typedef struct { uint64_t rows, cols; int64_t ld, stride; int type, batch, order; } Layout;
typedef struct { uint64_t workspace; uint32_t alignment[4]; } Preference;
typedef struct { uint64_t data[8]; } Algorithm; /* magic, number, workspace, alignments */
typedef struct { Algorithm algo; size_t workspace; int state; float waves; int reserved[4]; } Result;

static const uint64_t MAGIC = 0xab1a5;
static long n_live;          /* descriptors and handles that are not destroyed */
static long n_products;      /* that were made */
static long last_algorithm;  /* which of those that were found */
static void (*enqueue)(void *stream, void (*work)(void *), void *product);

long fake_live(void) { return n_live; }
long fake_products(void) { return n_products; }
long fake_last_algorithm(void) { return last_algorithm; }
/* what gives work to a stream; without it, all is done at once */
void fake_enqueue_with(void (*function)(void *, void (*)(void *), void *)) { enqueue = function; }

/* what says whether a handle may be opened on the current device: 0 where it may */
static int (*touch)(void);
void fake_touch_with(int (*function)(void)) { touch = function; }

static void *made(size_t size) { n_live++; return calloc(1, size); }
static int gone(void *it) { if (!it) return INVALID; n_live--; free(it); return SUCCESS; }

int cublasLtCreate(Handle **out) { if (touch && touch()) return 1; *out = made(sizeof(Handle)); (*out)->magic = 1; return SUCCESS; }
int cublasLtDestroy(Handle *it) { return gone(it); }

int cublasLtMatmulDescCreate(Desc **out, int compute, int scale) {
    Desc *it = *out = made(sizeof(Desc));
    it->compute = compute; it->scale = scale; it->epilogue = 1; it->bias_type = -1;
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(Desc *it) { return gone(it); }

static void *desc_field(Desc *it, int attribute, size_t *size) {
    *size = 4;
    switch (attribute) {
    case 0: return &it->compute;
    case 1: return &it->scale;
    case 3: return &it->transa;
    case 4: return &it->transb;
    case 7: return &it->epilogue;
    case 8: *size = sizeof(void *); return &it->bias;
    case 26: return &it->bias_type;
    }
    return NULL;
}
static void *layout_field(Layout *it, int attribute, size_t *size) {
    *size = 8;
    switch (attribute) {
    case 0: *size = 4; return &it->type;
    case 1: *size = 4; return &it->order;
    case 2: return &it->rows;
    case 3: return &it->cols;
    case 4: return &it->ld;
    case 5: *size = 4; return &it->batch;
    case 6: return &it->stride;
    }
    return NULL;
}
static int put(void *field, size_t size, const void *data, size_t given) {
    if (!field || size != given || !data) return INVALID;
    memcpy(field, data, size);
    return SUCCESS;
}
static int tell(void *field, size_t size, void *data, size_t room, size_t *written) {
    if (!field || room < size || !data) return INVALID;
    memcpy(data, field, size);
    if (written) *written = size;
    return SUCCESS;
}

int cublasLtMatmulDescSetAttribute(Desc *it, int attribute, const void *data, size_t given) {
    size_t size; void *field = desc_field(it, attribute, &size);
    return put(field, size, data, given);
}
int cublasLtMatmulDescGetAttribute(Desc *it, int attribute, void *data, size_t room, size_t *written) {
    size_t size; void *field = desc_field(it, attribute, &size);
    return tell(field, size, data, room, written);
}
int cublasLtMatrixLayoutCreate(Layout **out, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    Layout *it = *out = made(sizeof(Layout));
    it->type = type; it->rows = rows; it->cols = cols; it->ld = ld; it->batch = 1;
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Layout *it) { return gone(it); }
int cublasLtMatrixLayoutSetAttribute(Layout *it, int attribute, const void *data, size_t given) {
    size_t size; void *field = layout_field(it, attribute, &size);
    return put(field, size, data, given);
}
int cublasLtMatrixLayoutGetAttribute(Layout *it, int attribute, void *data, size_t room, size_t *written) {
    size_t size; void *field = layout_field(it, attribute, &size);
    return tell(field, size, data, room, written);
}
int cublasLtMatmulPreferenceCreate(Preference **out) {
    Preference *it = *out = made(sizeof(Preference));
    for (int i = 0; i < 4; i++) it->alignment[i] = 256;
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(Preference *it) { return gone(it); }
int cublasLtMatmulPreferenceSetAttribute(Preference *it, int attribute, const void *data, size_t given) {
    if (attribute == 1) return put(&it->workspace, 8, data, given);
    if (attribute >= 5 && attribute <= 8) return put(&it->alignment[attribute - 5], 4, data, given);
    return INVALID;
}

static int item(int type) {
    switch (type) {
    case F64: return 8;
    case F32: case I32: return 4;
    case F16: case BF16: return 2;
    case I8: return 1;
    }
    return 0;
}

/* the table of the documentation, without complex numbers and 8-bit floats; what it leaves open is refused */
static int typed(const Desc *d, int a, int b, int c, int out) {
    if (a != b || c != out) return INVALID;
    switch (d->compute) {
    case 68:
        if (d->scale != F32) return UNSUPPORTED;
        if (a == F32) return out == F32 ? SUCCESS : UNSUPPORTED;
        if (a == F16) return out == F16 || out == F32 ? SUCCESS : UNSUPPORTED;
        if (a == BF16) return out == BF16 || out == F32 ? SUCCESS : UNSUPPORTED;
        return UNSUPPORTED;
    case 77: return d->scale == F32 && a == F32 && out == F32 ? SUCCESS : UNSUPPORTED;
    case 70: return d->scale == F64 && a == F64 && out == F64 ? SUCCESS : UNSUPPORTED;
    case 72: return d->scale == I32 && a == I8 && out == I32 ? SUCCESS : UNSUPPORTED;
    }
    return UNSUPPORTED;
}

static int check(const Desc *d, const Layout *a, const Layout *b, const Layout *c, const Layout *out) {
    const Layout *all[] = {a, b, c, out};
    if (!d || !a || !b || !c || !out) return INVALID;
    for (int i = 0; i < 4; i++) {
        const Layout *it = all[i];
        if (!item(it->type) || !it->rows || !it->cols || it->ld < (int64_t)it->rows || it->order) return INVALID;
        if (it->batch < 1 || it->batch != out->batch) return INVALID;
    }
    if ((d->transa & ~1) || (d->transb & ~1)) return INVALID;
    uint64_t m = d->transa ? a->cols : a->rows, k = d->transa ? a->rows : a->cols;
    uint64_t bk = d->transb ? b->cols : b->rows, n = d->transb ? b->rows : b->cols;
    if (k != bk || out->rows != m || out->cols != n || c->rows != m || c->cols != n) return INVALID;
    if (out->batch > 1 && out->stride < (int64_t)(out->ld * (out->cols - 1) + out->rows)) {
        /* matrices may interleave, but not overlap: rows of one lie between columns of the other */
        if (out->stride < (int64_t)out->rows || out->stride * out->batch > out->ld) return INVALID;
    }
    int status = typed(d, a->type, b->type, c->type, out->type);
    if (status) return status;
    switch (d->epilogue) { case 1: case 2: case 4: case 6: case 32: case 36: break; default: return UNSUPPORTED; }
    if (d->epilogue != 1 && (d->compute == 70 || d->compute == 72)) return UNSUPPORTED;
    if (d->epilogue & 4) {
        if (d->bias_type != -1 && d->bias_type != out->type) return UNSUPPORTED;
        if (!d->bias || (uintptr_t)d->bias % item(out->type)) return INVALID;
    }
    if (d->compute == 72) {
        if (!d->transa || d->transb || m % 4 || k % 4) return UNSUPPORTED;
        for (int i = 0; i < 4; i++) if (all[i]->ld % 4) return UNSUPPORTED;
    }
    return SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(Handle *h, Desc *d, Layout *a, Layout *b, Layout *c, Layout *out, Preference *p,
                                   int requested, Result *results, int *returned) {
    *returned = 0;
    if (!h || h->magic != 1 || !p || requested < 1 || !results) return INVALID;
    int status = check(d, a, b, c, out);
    if (status) return status;
    int types[] = {a->type, b->type, c->type, out->type};
    for (int i = 0; i < 4; i++) {
        uint32_t n = p->alignment[i];
        if (!n || (n & (n - 1)) || n < (uint32_t)item(types[i])) return UNSUPPORTED;
        if (d->compute == 72 && n < 4) return UNSUPPORTED;
    }
    if ((d->epilogue & 4) && (uintptr_t)d->bias % p->alignment[3]) return UNSUPPORTED;
    /* long sums are cut, where there is room for what comes of the parts */
    uint64_t wanted = (d->transa ? a->rows : a->cols) >= 16 ? 4096 : 0;
    for (int i = 0; i < requested && i < MOST_ALGORITHMS; i++) {
        Result *r = &results[i];
        memset(r, 0, sizeof *r);
        r->workspace = i == 0 && wanted <= p->workspace ? wanted : 0;
        uint64_t data[8] = {MAGIC, (uint64_t)i, r->workspace, p->alignment[0], p->alignment[1], p->alignment[2], p->alignment[3], 0};
        memcpy(r->algo.data, data, sizeof data);
        ++*returned;
    }
    return SUCCESS;
}

static float of_bits(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
static uint32_t to_bits(float f) { uint32_t bits; memcpy(&bits, &f, 4); return bits; }

static float from_half(uint16_t h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    float f = exponent == 31 ? (mantissa ? NAN : INFINITY) : exponent ? ldexpf(1024 + mantissa, exponent - 25) : ldexpf(mantissa, -24);
    return h & 0x8000 ? -f : f;
}
static uint16_t to_half(float f) {
    uint16_t sign = to_bits(f) >> 16 & 0x8000;
    float size = fabsf(f);
    if (isnan(f)) return sign | 0x7e00;
    if (size >= 65520) return sign | 0x7c00;
    int exponent;
    frexpf(size, &exponent); /* size < 2^exponent */
    if (exponent < -13) exponent = -13;
    int mantissa = (int)rintf(ldexpf(size, 11 - exponent)); /* to nearest, even */
    return sign + (uint16_t)(mantissa >= 1024 ? ((exponent + 13) << 10) + mantissa : mantissa);
}
static uint16_t to_bfloat(float f) {
    uint32_t bits = to_bits(f);
    if (isnan(f)) return bits >> 16 | 64;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static double load(const void *p, int64_t i, int type) {
    switch (type) {
    case F64: return ((const double *)p)[i];
    case F32: return ((const float *)p)[i];
    case I32: return ((const int32_t *)p)[i];
    case I8: return ((const int8_t *)p)[i];
    case F16: return from_half(((const uint16_t *)p)[i]);
    }
    return of_bits((uint32_t)((const uint16_t *)p)[i] << 16);
}
static void store(void *p, int64_t i, int type, double value) {
    switch (type) {
    case F64: ((double *)p)[i] = value; return;
    case F32: ((float *)p)[i] = (float)value; return;
    case I32: ((int32_t *)p)[i] = (int32_t)(int64_t)value; return;
    case F16: ((uint16_t *)p)[i] = to_half((float)value); return;
    case BF16: ((uint16_t *)p)[i] = to_bfloat((float)value); return;
    }
}
/* TF32 has 10 bits of mantissa */
static double rounded(double value) { return of_bits((to_bits((float)value) + 0x1000) & 0xffffe000); }

typedef struct {
    Desc d; Layout a, b, c, out; const void *pa, *pb, *pc; void *pout, *workspace; double alpha, beta; size_t n_workspace; long number;
} Product;

static void make(void *pointer) {
    const Product *p = pointer;
    const Desc *d = &p->d;
    int64_t m = p->out.rows, n = p->out.cols, k = d->transa ? p->a.rows : p->a.cols;
    n_products++;
    last_algorithm = p->number;
    if (p->n_workspace) memset(p->workspace, 0xa5, p->n_workspace);
    for (int64_t batch = 0; batch < p->out.batch; batch++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++) {
                    double x = load(p->pa, batch * p->a.stride + (d->transa ? i * p->a.ld + l : l * p->a.ld + i), p->a.type);
                    double y = load(p->pb, batch * p->b.stride + (d->transb ? l * p->b.ld + j : j * p->b.ld + l), p->b.type);
                    sum += d->compute == 77 ? rounded(x) * rounded(y) : x * y;
                }
                sum *= p->alpha;
                if (p->beta != 0) sum += p->beta * load(p->pc, batch * p->c.stride + j * p->c.ld + i, p->c.type);
                if (d->epilogue & 4) sum += load(d->bias, i, p->out.type);
                if (d->epilogue & 2) sum = sum > 0 ? sum : 0;
                if (d->epilogue & 32) sum = 0.5 * sum * (1 + tanh(0.7978845608028654 * (sum + 0.044715 * sum * sum * sum)));
                store(p->pout, batch * p->out.stride + j * p->out.ld + i, p->out.type, sum);
            }
}

int cublasLtMatmul(Handle *h, Desc *d, const void *alpha, const void *pa, Layout *a, const void *pb, Layout *b,
                   const void *beta, const void *pc, Layout *c, void *pout, Layout *out, const Algorithm *algo,
                   void *workspace, size_t n_workspace, void *stream) {
    if (!h || h->magic != 1 || !alpha || !beta || !pa || !pb || !pc || !pout) return INVALID;
    int status = check(d, a, b, c, out);
    if (status) return status;
    if (algo->data[0] != MAGIC) return INVALID;
    if (algo->data[2] > n_workspace || (algo->data[2] && (!workspace || (uintptr_t)workspace % 16))) return INVALID;
    const void *addresses[] = {pa, pb, pc, pout};
    for (int i = 0; i < 4; i++) if ((uintptr_t)addresses[i] % algo->data[3 + i]) return UNSUPPORTED;
    if ((d->epilogue & 4) && (uintptr_t)d->bias % algo->data[6]) return UNSUPPORTED;
    Product product = {*d, *a, *b, *c, *out, pa, pb, pc, pout, workspace, 0, 0, algo->data[2], (long)algo->data[1]};
    product.alpha = load(alpha, 0, d->scale);
    product.beta = load(beta, 0, d->scale);
    if (enqueue) {
        Product *kept = malloc(sizeof product); /* for good: a captured graph may make it at any time */
        *kept = product;
        enqueue(stream, make, kept);
    } else {
        make(&product);
    }
    return SUCCESS;
}
