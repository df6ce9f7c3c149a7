// What the lanes of a warp do together: votes, shuffles, matches, reductions. The rules are those of the CUDA C++
// Programming Guide, "Warp Vote Functions" to "Warp Shuffle Functions".
#include "multiprocessor.h"

namespace cuda_on_cpu {

namespace {

// The one result of an operation from BALLOT on.
uint64_t combined(LaneOperation operation, const Thread* lanes, unsigned n_lanes, unsigned group) {
    uint64_t all = 0;
    bool is_first = true;
    for (unsigned i = 0; i < n_lanes; ++i) {
        if (!(group >> i & 1)) continue;
        const uint64_t value = lanes[i].in;
        const auto replaces = [&](bool is_better) { return is_first || is_better; };
        switch (operation) {
            case SUM: all = static_cast<unsigned>(all + value); break;
            case MIN_UNSIGNED:
                if (replaces(static_cast<unsigned>(value) < static_cast<unsigned>(all))) all = value;
                break;
            case MAX_UNSIGNED:
                if (replaces(static_cast<unsigned>(value) > static_cast<unsigned>(all))) all = value;
                break;
            case MIN_SIGNED:
                if (replaces(static_cast<int>(value) < static_cast<int>(all))) all = value;
                break;
            case MAX_SIGNED:
                if (replaces(static_cast<int>(value) > static_cast<int>(all))) all = value;
                break;
            case AND: all = is_first ? value : all & value; break;
            case OR: all |= value; break;
            case XOR: all ^= value; break;
            default:
                if (value) all |= 1u << i;
        }
        is_first = false;
    }
    if (operation == ANY) return all != 0;
    if (operation == ALL) return all == group;
    return all;
}

// The lane whose value lane `i` takes: its own where the other is outside of its part of `width` lanes.
int source_lane(const Thread& thread, int i) {
    const int width = thread.width > 0 && thread.width <= int(WARP_SIZE) ? thread.width : int(WARP_SIZE);
    const int base = i / width * width;
    const int by = thread.argument;
    switch (thread.operation) {
        case SHUFFLE_INDEX: return base + (by & (width - 1));
        case SHUFFLE_UP: return i - base - by >= 0 ? i - by : i;
        case SHUFFLE_DOWN: return unsigned(i - base) + unsigned(by) < unsigned(width) ? i + by : i;
        default: return (i ^ by) < base + width ? i ^ by : i;
    }
}

uint64_t matching(const Thread* lanes, unsigned n_lanes, unsigned group, unsigned i) {
    unsigned found = 0;
    for (unsigned k = 0; k < n_lanes; ++k) {
        if ((group >> k & 1) && lanes[k].in == lanes[i].in) found |= 1u << k;
    }
    return lanes[i].operation == MATCH_ANY || found == group ? found : 0;
}

}  // namespace

bool try_complete(Multiprocessor& m, unsigned t, bool is_current) {
    const unsigned first = t / WARP_SIZE * WARP_SIZE;
    const unsigned n_lanes = m.n_threads - first < WARP_SIZE ? m.n_threads - first : WARP_SIZE;
    const unsigned mask = m.threads[t].mask;
    unsigned group = 0;
    for (unsigned i = 0; i < n_lanes; ++i) {
        if (!(mask >> i & 1)) continue;
        const Thread& lane = m.threads[first + i];
        // "threads that have exited" aren't waited for
        if (lane.state == ThreadState::DONE) continue;
        if (lane.state != ThreadState::IN_WARP || lane.mask != mask) return false;
        group |= 1u << i;
    }
    Thread* lanes = &m.threads[first];
    const LaneOperation operation = m.threads[t].operation;
    const uint64_t all = operation >= BALLOT ? combined(operation, lanes, n_lanes, group) : 0;
    for (unsigned i = 0; i < n_lanes; ++i) {
        if (!(group >> i & 1)) continue;
        Thread& lane = lanes[i];
        if (lane.operation >= BALLOT) {
            lane.out = all;
        } else if (lane.operation == MATCH_ANY || lane.operation == MATCH_ALL) {
            lane.out = matching(lanes, n_lanes, group, i);
        } else if (lane.operation != SYNC) {
            const int from = source_lane(lane, int(i));
            // undefined where that lane doesn't take part: here its own
            lane.out = from >= 0 && from < int(WARP_SIZE) && (group >> from & 1) ? lanes[from].in : lane.in;
        }
    }
    for (unsigned i = 0; i < n_lanes; ++i) {
        if (!(group >> i & 1)) continue;
        lanes[i].state = ThreadState::RUNNABLE;
        if (!(is_current && first + i == t)) m.ready.push_back(first + i);
    }
    return true;
}

bool answer_active(Multiprocessor& m) {
    bool has_answered = false;
    for (unsigned first = 0; first < m.n_threads; first += WARP_SIZE) {
        unsigned group = 0;
        void* call_site = nullptr;
        for (unsigned i = 0; i < WARP_SIZE && first + i < m.n_threads; ++i) {
            const Thread& lane = m.threads[first + i];
            if (lane.state != ThreadState::ASKS_ACTIVE || (group && lane.call_site != call_site)) continue;
            call_site = lane.call_site;
            group |= 1u << i;
        }
        for (unsigned i = 0; i < WARP_SIZE; ++i) {
            if (!(group >> i & 1)) continue;
            m.threads[first + i].out = group;
            m.threads[first + i].state = ThreadState::RUNNABLE;
            m.ready.push_back(first + i);
            has_answered = true;
        }
    }
    return has_answered;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

unsigned cuda_on_cpu_lane() {
    return multiprocessor->current % WARP_SIZE;
}

unsigned long long cuda_on_cpu_warp(LaneOperation operation, unsigned mask, unsigned long long value, int argument,
                                    int width) {
    Multiprocessor& m = *multiprocessor;
    const unsigned me = m.current;
    Thread& thread = m.threads[me];
    thread.state = ThreadState::IN_WARP;
    thread.mask = mask | 1u << me % WARP_SIZE;
    thread.operation = operation;
    thread.in = thread.out = value;
    thread.argument = argument;
    thread.width = width;
    if (!try_complete(m, me, true)) wait(m);
    return thread.out;
}

unsigned cuda_on_cpu_activemask(void* call_site) {
    Multiprocessor& m = *multiprocessor;
    Thread& thread = m.threads[m.current];
    thread.state = ThreadState::ASKS_ACTIVE;
    thread.call_site = call_site;
    wait(m);
    return unsigned(thread.out);
}
