// x86 traps an integer division by 0, and of the smallest number by -1; a GPU doesn't. The handler decodes the
// division (Intel SDM volume 2, "DIV", "IDIV"), puts results in place and goes on behind it: n / 0 is all ones,
// n % 0 is n, the smallest number / -1 is itself.
#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>

#include "multiprocessor.h"

namespace cuda_on_cpu {

namespace {

constexpr unsigned char OPERAND_SIZE_PREFIX = 0x66;
constexpr unsigned char REX = 0x40, REX_MASK = 0xf0, REX_W = 8;
constexpr unsigned char DIVIDE_BYTE = 0xf6, DIVIDE = 0xf7;
constexpr int IDIV = 7;  // ModRM.reg; 6 is DIV
constexpr int SIB_FOLLOWS = 4, NO_BASE = 5, REGISTER = 3;

struct sigaction previous_action;

// Bytes of SIB and displacement behind a ModRM byte.
int address_nbytes(const unsigned char* after_modrm, unsigned char modrm) {
    const int mod = modrm >> 6, rm = modrm & 7;
    if (mod == REGISTER) return 0;
    const bool has_sib = rm == SIB_FOLLOWS;
    const bool has_base = (has_sib ? *after_modrm & 7 : rm) != NO_BASE;
    if (mod == 1) return has_sib + 1;
    if (mod == 2) return has_sib + 4;
    return has_sib + (has_base ? 0 : 4);
}

// Whether the instruction at rip was a division, whose registers are then as of a GPU's.
bool complete_division(greg_t* registers) {
    const unsigned char* at = reinterpret_cast<const unsigned char*>(registers[REG_RIP]);
    bool is_short = false, is_long = false;
    for (; *at == OPERAND_SIZE_PREFIX; ++at) {
        is_short = true;
    }
    if ((*at & REX_MASK) == REX) {
        is_long = *at & REX_W;
        ++at;
    }
    const unsigned char opcode = *at++;
    if (opcode != DIVIDE && opcode != DIVIDE_BYTE) return false;
    const unsigned char modrm = *at++;
    at += address_nbytes(at, modrm);
    greg_t& low = registers[REG_RAX];
    greg_t& high = registers[REG_RDX];
    if (opcode == DIVIDE_BYTE) {
        low = (low & ~0xffffll) | 0xff;
    } else {
        const bool is_smallest = is_long    ? uint64_t(low) == uint64_t(1) << 63
                                 : is_short ? uint16_t(low) == 0x8000
                                            : uint32_t(low) == 0x80000000u;
        const bool is_overflow = (modrm >> 3 & 7) == IDIV && is_smallest;
        const greg_t quotient = is_overflow ? low : -1;
        const greg_t remainder = is_overflow ? 0 : low;
        low = is_long ? quotient : greg_t(uint32_t(quotient));
        high = is_long ? remainder : greg_t(uint32_t(remainder));
    }
    registers[REG_RIP] = reinterpret_cast<greg_t>(at);
    return true;
}

void on_signal(int number, siginfo_t* info, void* context) {
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const bool is_integer = info->si_code == FPE_INTDIV || info->si_code == FPE_INTOVF;
    if (multiprocessor && is_integer && complete_division(registers)) return;
    if (previous_action.sa_flags & SA_SIGINFO) {
        if (previous_action.sa_sigaction) return previous_action.sa_sigaction(number, info, context);
    } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
        return previous_action.sa_handler(number);
    }
    signal(SIGFPE, SIG_DFL);
}

}  // namespace

void handle_integer_division() {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGFPE, &action, &previous_action);
}

}  // namespace cuda_on_cpu
