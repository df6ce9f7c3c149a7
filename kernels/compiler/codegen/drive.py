"""The native loop over a program's steps, and how threads wait for work and for each other.

A step has four words: the kernel's address, its words' address, how many threads take part, and whether all must have
come this far before it begins. A step without a kernel is a jump: its words are the address of a byte (0: jump always),
what the byte must be (0, or not 0: 1), and how many steps further to go on where it is.
"""

from __future__ import annotations

import platform

from distort.kernels.compiler.codegen.text import Function, Value

# words of the control block; each group has a cache line of its own
JOB, ARRIVED, EPOCH, SKIP, STEPS, N_STEPS, YIELD = 0, 8, 16, 24, 32, 33, 40
SLEEPS = 48  # and eight words for each thread
N_WORDS = 48
STEP_WORDS = TRACE_WORDS = 4
#: the number of steps that ends a thread
QUIT = -1
#: how often a thread looks before it lets others run
_LOOKS = 2000


def functions() -> list[Function]:
    return [_drive(), _serve(), _publish()]


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


def _barrier(f: Function, control: Value, n_threads: Value) -> None:
    epoch = _at(f, control, EPOCH)
    before = _read(f, epoch)
    arrived = f.op("i64", f"atomicrmw add ptr {_at(f, control, ARRIVED).text}, i64 1 acq_rel, align 8")
    last = f.compare("eq", f.add(arrived, 1), n_threads)
    then, other, after = (f.fresh_label(stem) for stem in ("last", "others", "together"))
    f.do(f"br {last}, label %{then}, label %{other}")
    f.label(then)
    _write(f, 0, _at(f, control, ARRIVED), "monotonic")
    _write(f, f.i64(f.add(before, 1)), epoch)
    f.do(f"br label %{after}")
    f.label(other)
    _until_changed(f, control, epoch, before, None)
    f.do(f"br label %{after}")
    f.label(after)


def _drive() -> Function:
    """void(steps, n_steps, thread, n_threads, control, trace)

    ``trace``, where there is one, has for each step: the clock when it first began, all ticks, how often it ran, the
    clock when it last ended.
    """
    f = Function("distort_drive", ("ptr", "i64", "i64", "i64", "ptr", "ptr"))
    steps, n_steps, thread, n_threads, control, trace = f.parameters
    traced = f.op("i1", f"icmp ne ptr {trace.text}, null")
    several = f.compare("sgt", n_threads, 1)
    with f.loop(0, n_steps) as loop:
        step = f.at(steps, f.mul(loop.index, STEP_WORDS), "i64")
        kernel, words = (f.load("ptr", f.at(step, i, "i64")) for i in (0, 1))
        wanted, together = (f.load("i64", f.at(step, i, "i64")) for i in (2, 3))
        wait = f.binary("and", several, f.compare("ne", together, 0))
        with f.when(wait):
            _barrier(f, control, n_threads)
        part = f.min(wanted, n_threads)
        mine = f.compare("slt", thread, part)
        skip = _read(f, _at(f, control, SKIP), "monotonic")
        jumps = f.op("i1", f"icmp eq ptr {kernel.text}, null")
        going = f.compare("eq", skip, 0)

        def call() -> list[Value]:
            with f.when(f.binary("and", mine, going)):
                (began,) = f.choose(traced, (lambda: [_clock(f)], lambda: [f.i64(0)]))
                f.do(f"call void {kernel.text}({words}, {thread}, {f.i64(part)})")
                with f.when(traced):
                    _note(f, f.at(trace, f.mul(loop.index, TRACE_WORDS), "i64"), began)
            return [f.i64(1)]

        (loop.step,) = f.choose(jumps, (lambda: [f.select(going, _leap(f, words), n_steps)], call))
    with f.when(several):
        _barrier(f, control, n_threads)
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
    """i64(control, thread, n_threads, last, spins): does jobs until there is none for so long, or none ever again.

    Returns the number of the last job, or a negative number at the end.
    """
    f = Function("distort_serve", ("ptr", "i64", "i64", "i64", "i64"), "i64")
    control, thread, n_threads, last, spins = f.parameters
    seen = f.alloca("i64")
    f.store(last, seen)
    sleeps = f.at(control, f.add(f.mul(thread, 8), SLEEPS), "i64")
    look, got, none, awake, asleep, work, end = (
        f.fresh_label(stem) for stem in ("seek", "got", "none", "awake", "asleep", "work", "end")
    )
    f.do(f"br label %{look}")
    f.label(look)
    before = f.load("i64", seen)
    now = _until_changed(f, control, _at(f, control, JOB), before, spins)
    f.do(f"br {f.compare('ne', now, before)}, label %{got}, label %{none}")
    f.label(none)
    f.op("i64", f"atomicrmw xchg ptr {sleeps.text}, i64 1 seq_cst, align 8")
    again = _read(f, _at(f, control, JOB), "seq_cst")
    f.do(f"br {f.compare('ne', again, before)}, label %{awake}, label %{asleep}")
    f.label(awake)
    f.op("i64", f"atomicrmw xchg ptr {sleeps.text}, i64 0 seq_cst, align 8")
    f.do(f"br label %{got}")
    f.label(asleep)
    f.ret(before)
    f.label(got)
    job = _read(f, _at(f, control, JOB))
    f.store(job, seen)
    count = f.load("i64", _at(f, control, N_STEPS))
    f.do(f"br {f.compare('slt', count, 0)}, label %{end}, label %{work}")
    f.label(end)
    f.ret(f.i64(QUIT))
    f.label(work)
    steps = f.load("ptr", _at(f, control, STEPS))
    f.do(f"call void @distort_drive({steps}, {count}, {thread}, {n_threads}, {control}, ptr null)")
    f.do(f"br label %{look}")
    return f


def _publish() -> Function:
    """i64(control, steps, n_steps, n_threads): tell the others of a job. Returns who sleeps, a bit each."""
    f = Function("distort_publish", ("ptr", "ptr", "i64", "i64"), "i64")
    control, steps, n_steps, n_threads = f.parameters
    f.store(steps, _at(f, control, STEPS))
    f.store(n_steps, _at(f, control, N_STEPS))
    f.op("i64", f"atomicrmw add ptr {_at(f, control, JOB).text}, i64 1 seq_cst, align 8")
    with f.loop(1, n_threads, carried=[f.i64(0)]) as loop:
        sleeps = f.at(control, f.add(f.mul(loop.index, 8), SLEEPS), "i64")
        slept = f.op("i64", f"atomicrmw xchg ptr {sleeps.text}, i64 0 seq_cst, align 8")
        loop.carry([f.binary("or", loop.carried[0], f.binary("shl", slept, loop.index))])
    f.ret(loop.carried[0])
    return f
