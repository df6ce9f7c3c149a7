// nvJitLink, which whoever loads cuSOLVER or cuSPARSE loads beside them. Nobody calls it.
#include "driver.h"

EXPORT int nvJitLinkVersion(unsigned* major, unsigned* minor) {
    *major = 12;
    *minor = 9;
    return 0;
}
