"""The native loop over a program's steps, and how threads share a step and wait for work.

A step has four words: the kernel's address, its words' address, how many threads take part, and in how many parts each
one's share is cut. A step without a kernel is a jump: its words are the address of a byte (0: jump always), what the
byte must be (0, or not 0: 1), and how many steps further to go on where it is.

One thread goes through the steps. Of a step for several, whoever is there takes parts: each thread its own ones first,
then others'. So nobody waits for a thread that the system has not let run, only for parts that are being done.
"""

from __future__ import annotations

import platform

from distort.kernels.compiler.codegen.text import Function, Index, Value

# words of the control block; each group has a cache line of its own
JOB, TICKET, DONE, KERNEL, WORDS, CHUNKS, N_STEPS, YIELD = 0, 8, 16, 9, 10, 11, 32, 40
SLEEPS = 48  # and eight words for each thread
N_WORDS = 48
STEP_WORDS = TRACE_WORDS = 4
#: the number of steps that ends a thread
QUIT = -1
#: how often a thread looks before it lets others run
_LOOKS = 2000


#: of a ticket, from the lowest bit: the parts that somebody has taken, how many there are, the number of the step
_MASK, _PARTS = 32, 8
#: the most parts of a step
MOST_PARTS = 32


def functions() -> list[Function]:
    return [_drive(), _work(), _serve(), _publish()]


def _at(f: Function, control: Value, word: int) -> Value:
    return f.at(control, word, "i64")


def _read(f: Function, address: Value, order: str = "acquire") -> Value:
    return f.op("i64", f"load atomic i64, ptr {address.text} {order}, align 8")


def _write(f: Function, value: Value | int, address: Value, order: str = "release") -> None:
    text = value.text if isinstance(value, Value) else value
    f.do(f"store atomic i64 {text}, ptr {address.text} {order}, align 8")


def _until_changed(f: Function, control: Value, address: Value, before: Value, most: Value | None) -> Value:
    """Look at a word until it is another; at most so often. Returns what it is."""
    first, head, wait, rest, pause, give, done = (
        f.fresh_label(stem) for stem in ("first", "look", "wait", "rest", "pause", "give", "done")
    )
    f.do(f"br label %{first}")
    f.label(first)
    f.do(f"br label %{head}")
    f.label(head)
    count, more = f.fresh("i64"), f.fresh("i64")
    f.do(f"{count.text} = phi i64 [ 0, %{first} ], [ {more.text}, %{pause} ], [ {more.text}, %{give} ]")
    now = _read(f, address)
    f.do(f"br {f.compare('ne', now, before)}, label %{done}, label %{wait}")
    f.label(wait)
    f.do(f"{more.text} = add i64 {count.text}, 1")
    if most is None:
        f.do(f"br label %{rest}")
    else:
        f.do(f"br {f.compare('sge', count, most)}, label %{done}, label %{rest}")
    f.label(rest)
    f.do(f"br {f.compare('slt', count, _LOOKS)}, label %{pause}, label %{give}")
    f.label(pause)
    if platform.machine() in ("aarch64", "arm64"):
        f.call("void", "llvm.aarch64.hint", [Value("i32", "1")])
    else:
        f.call("void", "llvm.x86.sse2.pause", [])
    f.do(f"br label %{head}")
    f.label(give)
    other = f.load("ptr", _at(f, control, YIELD))
    f.op("i32", f"call i32 {other.text}()")
    f.do(f"br label %{head}")
    f.label(done)
    return now


def _drive() -> Function:
    """void(steps, n_steps, thread, n_threads, control, trace, cancel): thread is 0.

    ``cancel``, where there is one, is the address of a byte: when it is not 0, no more steps are begun.

    ``trace``, where there is one, has for each step: the clock when it first began, all ticks, how often it ran, the
    clock when it last ended.
    """
    f = Function("distort_drive", ("ptr", "i64", "i64", "i64", "ptr", "ptr", "ptr"))
    steps, n_steps, thread, n_threads, control, trace, cancel = f.parameters
    never = f.op("i1", f"icmp eq ptr {cancel.text}, null")
    traced = f.op("i1", f"icmp ne ptr {trace.text}, null")
    with f.loop(0, n_steps) as loop:
        step = f.at(steps, f.mul(loop.index, STEP_WORDS), "i64")
        kernel, words = (f.load("ptr", f.at(step, i, "i64")) for i in (0, 1))
        several = f.min(f.min(f.load("i64", f.at(step, 2, "i64")), n_threads), MOST_PARTS)
        chunks = f.min(f.load("i64", f.at(step, 3, "i64")), f.div(MOST_PARTS, several))
        parts = f.mul(several, chunks)
        (going,) = f.choose(never, (lambda: [f.const("i1", 1)], lambda: [_is_clear(f, cancel)]))
        jumps = f.op("i1", f"icmp eq ptr {kernel.text}, null")

        def alone() -> list[Value]:
            f.do(f"call void {kernel.text}({words}, {f.i64(0)}, {f.i64(1)}, {f.i64(0)})")
            return []

        def shared() -> list[Value]:
            _share(f, control, kernel, words, parts, f.i64(chunks))
            f.do(f"call void @distort_work({control}, {thread})")
            _until_done(f, control, parts)
            return []

        def call() -> list[Value]:
            with f.when(going):
                (began,) = f.choose(traced, (lambda: [_clock(f)], lambda: [f.i64(0)]))
                f.choose(f.compare("sgt", several, 1), (shared, alone))
                with f.when(traced):
                    _note(f, f.at(trace, f.mul(loop.index, TRACE_WORDS), "i64"), began)
            return [f.i64(1)]

        (loop.step,) = f.choose(jumps, (lambda: [f.select(going, _leap(f, words), n_steps)], call))
    with f.when(f.compare("sgt", n_threads, 1)):
        f.op("i64", f"atomicrmw add ptr {_at(f, control, JOB).text}, i64 1 seq_cst, align 8")
    f.ret()
    return f


def _is_clear(f: Function, flag: Value) -> Value:
    byte = f.op("i8", f"load atomic i8, ptr {flag.text} monotonic, align 1")
    return f.icmp("eq", byte, f.const("i8", 0))


def _share(f: Function, control: Value, kernel: Value, words: Value, parts: Index, chunks: Value) -> None:
    """Put up a step. All parts of the one before are done, so nobody reads what is written here."""
    for value, word in ((kernel, KERNEL), (words, WORDS)):
        f.do(f"store atomic ptr {value.text}, ptr {_at(f, control, word).text} monotonic, align 8")
    _write(f, chunks, _at(f, control, CHUNKS), "monotonic")
    _write(f, 0, _at(f, control, DONE), "monotonic")
    ticket = _at(f, control, TICKET)
    number = f.add(f.binary("lshr", _read(f, ticket, "monotonic"), f.i64(_MASK + _PARTS)), 1)
    of_parts = f.mul(f.add(f.mul(number, 1 << _PARTS), parts), 1 << _MASK)
    _write(f, f.i64(of_parts), ticket)


def _until_done(f: Function, control: Value, parts: Index) -> None:
    done = _at(f, control, DONE)
    first, look, again = (f.fresh_label(stem) for stem in ("parts", "unfinished", "finished"))
    f.do(f"br label %{first}")
    f.label(first)
    now = _read(f, done)
    f.do(f"br {f.compare('eq', now, parts)}, label %{again}, label %{look}")
    f.label(look)
    _until_changed(f, control, done, now, None)
    f.do(f"br label %{first}")
    f.label(again)


def _work() -> Function:
    """void(control, thread): take parts of the step that is up, and do them, until all are taken."""
    f = Function("distort_work", ("ptr", "i64"))
    control, thread = f.parameters
    ticket = _at(f, control, TICKET)
    look, some, taken, end = (f.fresh_label(stem) for stem in ("look", "some", "taken", "end"))
    f.do(f"br label %{look}")
    f.label(look)
    now = _read(f, ticket)
    parts = f.binary("and", f.binary("lshr", now, f.i64(_MASK)), f.i64((1 << _PARTS) - 1))
    every = f.binary("sub", f.binary("shl", f.i64(1), parts), f.i64(1))
    free = f.binary("and", f.binary("xor", now, f.i64(-1)), every)
    f.do(f"br {f.compare('eq', free, 0)}, label %{end}, label %{some}")
    f.label(some)
    kernel, words = (
        f.op("ptr", f"load atomic ptr, ptr {_at(f, control, word).text} monotonic, align 8") for word in (KERNEL, WORDS)
    )
    chunks = _read(f, _at(f, control, CHUNKS), "monotonic")
    share = f.binary("sub", f.binary("shl", f.i64(1), chunks), f.i64(1))
    own = f.binary("and", free, f.binary("shl", share, f.i64(f.mul(thread, chunks))))
    lowest = f.binary("and", own, f.binary("sub", f.i64(0), own))
    # of others', the one that its owner comes to last
    zeros = f.op("i64", f"call i64 @llvm.ctlz.i64({free}, i1 true)")
    f.declare("i64 @llvm.ctlz.i64(i64, i1 immarg)")
    highest = f.binary("shl", f.i64(1), f.i64(f.sub(63, zeros)))
    bit = f.select(f.compare("ne", own, 0), lowest, highest)
    wanted = f.binary("or", now, bit)
    # what was read of the step is right where the ticket is still the same: the step has parts that nobody did
    swapped = f.op("{ i64, i1 }", f"cmpxchg ptr {ticket.text}, {now}, {wanted} acq_rel acquire, align 8")
    success = f.op("i1", f"extractvalue {swapped}, 1")
    f.do(f"br {success}, label %{taken}, label %{look}")
    f.label(taken)
    number = f.op("i64", f"call i64 @llvm.cttz.i64({bit}, i1 true)")
    f.declare("i64 @llvm.cttz.i64(i64, i1 immarg)")
    f.do(f"call void {kernel.text}({words}, {number}, {parts}, {thread})")
    f.op("i64", f"atomicrmw add ptr {_at(f, control, DONE).text}, i64 1 acq_rel, align 8")
    f.do(f"br label %{look}")
    f.label(end)
    f.ret()
    return f


def _clock(f: Function) -> Value:
    """Ticks of a clock that all processors share."""
    # the cycle counter of arm is not for programs
    arm = platform.machine() in ("aarch64", "arm64")
    return f.call("i64", "llvm.readsteadycounter" if arm else "llvm.readcyclecounter", [])


def _note(f: Function, entry: Value, began: Value) -> None:
    now = _clock(f)
    first, ticks, count = (f.load("i64", f.at(entry, n, "i64")) for n in range(3))
    f.store(f.select(f.compare("eq", count, 0), began, first), entry)
    f.store(f.i64(f.add(ticks, f.sub(now, began))), f.at(entry, 1, "i64"))
    f.store(f.i64(f.add(count, 1)), f.at(entry, 2, "i64"))
    f.store(now, f.at(entry, 3, "i64"))


def _leap(f: Function, words: Value) -> Value:
    """How many steps further to go on."""
    flag = f.load("ptr", words)
    wanted, far = (f.load("i64", f.at(words, n, "i64")) for n in (1, 2))
    always = f.op("i1", f"icmp eq ptr {flag.text}, null")

    def look() -> list[Value]:
        is_set = f.cast("zext", f.icmp("ne", f.load("i8", flag), f.const("i8", 0)), "i64")
        return [f.select(f.compare("eq", is_set, wanted), far, f.i64(1))]

    return f.choose(always, (lambda: [far], look))[0]


def _serve() -> Function:
    """i64(control, thread, n_threads, last, spins): takes part in jobs until there is none for so long.

    Returns ``QUIT`` where there will be none ever again, else 0.
    """
    f = Function("distort_serve", ("ptr", "i64", "i64", "i64", "i64"), "i64")
    control, thread, _, _, spins = f.parameters
    sleeps = f.at(control, f.add(f.mul(thread, 8), SLEEPS), "i64")
    ticket = _at(f, control, TICKET)
    look, on, none, awake, asleep, end = (
        f.fresh_label(stem) for stem in ("seek", "on", "none", "awake", "asleep", "end")
    )
    f.do(f"br label %{look}")
    f.label(look)
    before = _read(f, ticket)
    count = _read(f, _at(f, control, N_STEPS))
    f.do(f"br {f.compare('slt', count, 0)}, label %{end}, label %{on}")
    f.label(end)
    f.ret(f.i64(QUIT))
    f.label(on)
    f.do(f"call void @distort_work({control}, {thread})")
    now = _until_changed(f, control, ticket, before, spins)
    f.do(f"br {f.compare('ne', now, before)}, label %{look}, label %{none}")
    f.label(none)
    f.op("i64", f"atomicrmw xchg ptr {sleeps.text}, i64 1 seq_cst, align 8")
    job = _read(f, _at(f, control, JOB), "seq_cst")
    f.do(f"br {f.compare('ne', f.binary('and', job, f.i64(1)), 0)}, label %{awake}, label %{asleep}")
    f.label(awake)  # a job is under way, in which a step may need all threads at once
    f.op("i64", f"atomicrmw xchg ptr {sleeps.text}, i64 0 seq_cst, align 8")
    f.do(f"br label %{look}")
    f.label(asleep)
    f.ret(f.i64(0))
    return f


def _publish() -> Function:
    """i64(control, steps, n_steps, n_threads): tell the others of a job. Returns who sleeps, a bit each."""
    f = Function("distort_publish", ("ptr", "ptr", "i64", "i64"), "i64")
    control, _, n_steps, n_threads = f.parameters
    _write(f, n_steps, _at(f, control, N_STEPS), "monotonic")
    with f.when(f.compare("slt", n_steps, 0)):  # who looks for work sees that there is something new
        one = f.i64(1 << (_MASK + _PARTS))
        f.op("i64", f"atomicrmw add ptr {_at(f, control, TICKET).text}, {one} seq_cst, align 8")
    # odd while a job is under way
    f.op("i64", f"atomicrmw add ptr {_at(f, control, JOB).text}, i64 1 seq_cst, align 8")
    with f.loop(1, n_threads, carried=[f.i64(0)]) as loop:
        sleeps = f.at(control, f.add(f.mul(loop.index, 8), SLEEPS), "i64")
        slept = f.op("i64", f"atomicrmw xchg ptr {sleeps.text}, i64 0 seq_cst, align 8")
        loop.carry([f.binary("or", loop.carried[0], f.binary("shl", slept, loop.index))])
    f.ret(loop.carried[0])
    return f
