// SPDX-License-Identifier: GPL-2.0-only
/*
 * random SEED [STEPS [THREADS]]: a tree of processes that does to its memory whatever the mmap family allows.
 *
 * All calls aim at one small arena, so that ranges overlap, split and merge all the time; most calls that fail
 * fail half-way, which is wanted.  Real programs never reach many rules of mm/vma.c and mm/rmap.c: this one does.
 * SEED fixes what every process and thread does; only their interleaving differs from run to run.
 *
 * No stdio and no malloc after the start: nothing but the calls below may change the address space.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define PAGE 4096UL
#define HUGE (2UL << 20)
#define ARENA 128		/* pages that the calls aim at */
#define GAP (4UL << 20)		/* unmapped around them, and wider than the stack guard gap */
#define FILE_PAGES 160
#define STRAYS 8
#define ATTACHED 2
#define MAX_DEPTH 4
#define MAX_THREADS 8
#define CHILD_STACK 32768

static char *arena, *huge, *stack_top;	/* three places far from each other */
static char *initial_brk;
static int files[2], zero, shm;
static int threads;

/* What a thread of control remembers; a child process inherits a copy. */
struct task {
	uint64_t state;
	int depth;
	int steps;
	struct { char *at; size_t len; } stray[STRAYS];	/* what mremap moved out of the arena */
	char *attached[ATTACHED];				/* where System V shared memory was attached */
	char child_stack[CHILD_STACK] __attribute__((aligned(16)));
};

static __thread sigjmp_buf fault_return;
static __thread volatile sig_atomic_t fault_expected;

static void on_fault(int signal)
{
	if (!fault_expected)
		_exit(128 + signal);
	siglongjmp(fault_return, 1);
}

static unsigned int pick(struct task *t, unsigned int n)
{
	t->state = t->state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned int)(t->state >> 33) % n;
}

static bool one_in(struct task *t, unsigned int n)
{
	return pick(t, n) == 0;
}

static int pick_prot(struct task *t)
{
	static const int prot[] = {
		PROT_NONE, PROT_READ, PROT_READ | PROT_EXEC,
		PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
	};

	return prot[pick(t, ARRAY_SIZE(prot))];
}

struct range {
	size_t page;
	char *at;
	size_t len;
};

/* Mostly short ranges, so that there are many VMAs. */
static struct range pick_range(struct task *t)
{
	size_t page = pick(t, ARENA), n = 1 + pick(t, one_in(t, 3) ? 32 : 8);

	if (n > ARENA - page)
		n = ARENA - page;
	return (struct range){ page, arena + page * PAGE, n * PAGE };
}

static bool do_touch(char *at, bool write)
{
	volatile bool touched = false;

	fault_expected = 1;
	if (sigsetjmp(fault_return, 0) == 0) {
		if (write)
			*(volatile char *)at = 1;
		else
			(void)*(volatile char *)at;
		touched = true;
	}
	fault_expected = 0;
	return touched;
}

/* The kernel touches user memory: copy_to_user() for a write, copy_from_user() for a read. */
static void do_kernel_touch(struct range r, bool write)
{
	ssize_t n;

	if (write)
		n = read(zero, r.at, r.len);
	else
		n = pwrite(files[1], r.at, 1, 0);
	(void)n;
}

static void do_map(struct task *t)
{
	struct range r = pick_range(t);
	int flags = one_in(t, 16) ? MAP_FIXED_NOREPLACE : one_in(t, 16) ? 0 : MAP_FIXED;
	int fd = -1;
	size_t page = 0;
	char *at;

	switch (pick(t, 8)) {
	case 0:
	case 1:		/* one file at matching offsets, so that neighbours can merge, or anywhere, even past its end */
		flags |= MAP_PRIVATE;
		fd = files[pick(t, 2)];
		page = one_in(t, 4) ? pick(t, FILE_PAGES) : r.page;
		break;
	case 2:
		flags |= MAP_SHARED;
		fd = files[pick(t, 2)];
		page = r.page;
		break;
	case 3:
		flags |= MAP_SHARED | MAP_ANONYMOUS;
		break;
	case 4:		/* anonymous, yet with a file */
		if (one_in(t, 4)) {
			flags |= MAP_PRIVATE;
			fd = zero;
			break;
		}
		/* fall through */
	default:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
		flags |= one_in(t, 8) ? MAP_NORESERVE : one_in(t, 16) ? MAP_POPULATE :
			 one_in(t, 32) ? MAP_LOCKED : one_in(t, 32) ? MAP_STACK : 0;
	}
	at = mmap(r.at, r.len, pick_prot(t), flags, fd, page * PAGE);
	/* a mere hint was not followed */
	if (at != MAP_FAILED && at != r.at)
		munmap(at, r.len);
}

static void do_protect(struct task *t)
{
	struct range r = pick_range(t);

	if (one_in(t, 8))
		syscall(SYS_pkey_mprotect, r.at, r.len, pick_prot(t), -1);
	else
		mprotect(r.at, r.len, pick_prot(t));
}

/* A range may span several VMAs: from Linux 6.17 they move together if the length stays. */
static void do_remap(struct task *t)
{
	struct range from = pick_range(t), to = pick_range(t);
	int slot = pick(t, STRAYS), flags;
	char *at;

	if (t->stray[slot].at) {	/* bring one back, or change it where it is */
		at = mremap(t->stray[slot].at, t->stray[slot].len, to.len,
			    one_in(t, 3) ? 0 : MREMAP_MAYMOVE | MREMAP_FIXED, to.at);
		if (at == MAP_FAILED)
			munmap(t->stray[slot].at, t->stray[slot].len);
		else if (at == t->stray[slot].at)
			munmap(at, to.len);
		t->stray[slot].at = NULL;
		return;
	}

	switch (pick(t, 6)) {
	case 0:			/* grow or shrink in place */
		mremap(from.at, from.len, to.len, 0);
		break;
	case 1:			/* move where the kernel likes; DONTUNMAP never changes the length */
		flags = one_in(t, 3) ? MREMAP_MAYMOVE | MREMAP_DONTUNMAP : MREMAP_MAYMOVE;
		if (flags & MREMAP_DONTUNMAP)
			to.len = from.len;
		at = mremap(from.at, from.len, to.len, flags);
		if (at != MAP_FAILED && (at < arena || at >= arena + ARENA * PAGE)) {
			t->stray[slot].at = at;
			t->stray[slot].len = to.len;
		}
		break;
	case 2:			/* move and resize */
		mremap(from.at, from.len, to.len, MREMAP_MAYMOVE | MREMAP_FIXED, to.at);
		break;
	case 3:
		mremap(from.at, from.len, from.len, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to.at);
		break;
	case 4:			/* an old length of 0 maps the pages of a shared mapping once more */
		if (one_in(t, 4)) {
			mremap(from.at, 0, to.len, MREMAP_MAYMOVE | MREMAP_FIXED, to.at);
			break;
		}
		/* fall through */
	default:
		mremap(from.at, from.len, from.len, MREMAP_MAYMOVE | MREMAP_FIXED, to.at);
	}
}

static void do_advise(struct task *t)
{
	/* all but MADV_HWPOISON and MADV_SOFT_OFFLINE, which take pages from the machine */
	static const int advice[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE, MADV_REMOVE,
		MADV_DONTFORK, MADV_DOFORK, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
		MADV_DONTDUMP, MADV_DODUMP, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_COLD, MADV_PAGEOUT,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_DONTNEED_LOCKED, MADV_COLLAPSE,
		MADV_GUARD_INSTALL, MADV_GUARD_REMOVE,
	};
	struct range r = pick_range(t);

	madvise(r.at, r.len, advice[pick(t, ARRAY_SIZE(advice))]);
}

static void do_lock(struct task *t)
{
	static const int future[] = {
		MCL_CURRENT, MCL_FUTURE, MCL_CURRENT | MCL_FUTURE,
		MCL_CURRENT | MCL_ONFAULT, MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT,
	};
	struct range r = pick_range(t);

	switch (pick(t, 12)) {
	case 0:
		mlockall(future[pick(t, ARRAY_SIZE(future))]);
		break;
	case 1:
	case 2:
		munlockall();
		break;
	case 3:
	case 4:
	case 5:
		mlock(r.at, r.len);
		break;
	case 6:
	case 7:
		mlock2(r.at, r.len, MLOCK_ONFAULT);
		break;
	default:
		munlock(r.at, r.len);
	}
}

static void do_brk(struct task *t)
{
	char *wanted = initial_brk + pick(t, 24) * PAGE / 2;

	if (!initial_brk)	/* pthread_create() may still allocate */
		return;
	if ((char *)syscall(SYS_brk, wanted) == wanted && wanted > initial_brk)
		do_touch(wanted - 1, true);
}

static void do_shm(struct task *t)
{
	struct range r = pick_range(t);
	int slot = pick(t, ATTACHED);
	char *at;

	/* what was attached may be gone, moved, or in pieces by now */
	if (one_in(t, 2)) {
		shmdt(t->attached[slot]);
		return;
	}
	at = shmat(shm, r.at, (one_in(t, 4) ? 0 : SHM_REMAP) | (one_in(t, 4) ? SHM_RDONLY : 0));
	if (at != (char *)-1)
		t->attached[slot] = at;
}

/*
 * The thread's own stack, and a mapping that grows down as a stack does.  Here and in do_huge() a read would
 * prepare an anon_vma too, but rmaplab records read faults only where transparent huge pages are always on.
 */
static __attribute__((noinline)) char grow_stack(int pages)
{
	volatile char frame[PAGE];

	frame[0] = 1;
	return pages ? grow_stack(pages - 1) + frame[0] : 0;
}

static void do_stack(struct task *t)
{
	if (one_in(t, 2)) {
		grow_stack(pick(t, threads ? 16 : 120));
	} else if (one_in(t, 4)) {
		munmap(stack_top - 64 * PAGE, 64 * PAGE);
		mmap(stack_top - PAGE, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
	} else {
		do_touch(stack_top - (1 + pick(t, 64)) * PAGE, true);
	}
}

/* One huge page that is copied, split and zapped. */
static void do_huge(struct task *t)
{
	switch (pick(t, 8)) {
	case 0:
		mmap(huge, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		madvise(huge, HUGE, one_in(t, 4) ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
		break;
	case 1:
		mprotect(huge + pick(t, 64) * PAGE, 8 * PAGE, pick_prot(t));
		break;
	case 2:
		madvise(huge + pick(t, 64) * PAGE, 8 * PAGE, MADV_DONTNEED);
		break;
	case 3:
		if (one_in(t, 4))
			madvise(huge, HUGE, MADV_COLLAPSE);
		break;
	default:
		do_touch(huge + pick(t, 64) * PAGE, true);
	}
}

static void work(struct task *t);

static void do_fork(struct task *t)
{
	unsigned int salt = pick(t, 1 << 30);
	pid_t child;

	if (t->depth >= MAX_DEPTH)
		return;
	child = fork();
	if (child == 0) {
		t->state ^= salt;
		t->depth++;
		t->steps = t->steps / 4;
		work(t);
		_exit(0);
	}
	/* Parent and child go on together, or the parent waits; orphans fall to the first process. */
	if (child > 0 && one_in(t, 2))
		waitpid(child, NULL, 0);
}

static int borrower(void *arg)
{
	struct task *t = arg;

	for (int i = 0; i < 8; i++) {
		struct range r = pick_range(t);

		mprotect(r.at, r.len, pick_prot(t));
		do_touch(r.at, true);
	}
	return 0;
}

/* Children that use their parent's mm. */
static void do_vfork(struct task *t)
{
	static char *const argv[] = { "true", NULL };
	static char *const envp[] = { NULL };
	bool missing = one_in(t, 4);
	pid_t child;

	if (one_in(t, 3)) {
		child = clone(borrower, t->child_stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, t);
	} else {
		child = vfork();
		if (child == 0) {
			execve(missing ? "/nonexistent" : "/bin/true", argv, envp);
			_exit(1);
		}
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}

static void step(struct task *t)
{
	struct range r = pick_range(t);
	bool write = !one_in(t, 3);

	switch (pick(t, 40)) {
	case 0 ... 7:
		do_map(t);
		break;
	case 8 ... 10:
		munmap(r.at, r.len);
		break;
	case 11 ... 15:
		do_protect(t);
		break;
	case 16 ... 20:
		do_remap(t);
		break;
	case 21 ... 24:
		do_advise(t);
		break;
	case 25:
		do_lock(t);
		break;
	case 26:
		do_brk(t);
		break;
	case 27:
		do_shm(t);
		break;
	case 28:
		do_stack(t);
		break;
	case 29:
		do_huge(t);
		break;
	case 30:
		if (one_in(t, 5))
			do_fork(t);
		else if (one_in(t, 12))
			do_vfork(t);
		break;
	case 31:
		do_kernel_touch(r, write);
		break;
	default:
		for (size_t at = 0; at < r.len; at += PAGE)
			if (one_in(t, 2) && !do_touch(r.at + at, write))
				break;
	}
}

static void work(struct task *t)
{
	for (int i = 0; i < t->steps; i++)
		step(t);
	/* Half of them leave children behind. */
	if (one_in(t, 2))
		while (waitpid(-1, NULL, 0) > 0)
			;
}

static void *run(void *arg)
{
	work(arg);
	return NULL;
}

/* An address range that is free and stays so: nothing else is mapped near it. */
static char *reserve(size_t len)
{
	size_t whole = len + 2 * GAP + HUGE;
	char *p = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		_exit(1);
	return (char *)(((uintptr_t)p + GAP + HUGE - 1) & ~(HUGE - 1));
}

static void set_up(void)
{
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);	/* so that the end of the first process is the end of all */

	zero = open("/dev/zero", O_RDWR);
	for (int i = 0; i < 2; i++) {
		files[i] = open(".", O_TMPFILE | O_RDWR, 0600);
		if (zero < 0 || files[i] < 0 || ftruncate(files[i], FILE_PAGES * PAGE))
			_exit(1);
	}
	shm = shmget(IPC_PRIVATE, 8 * PAGE, IPC_CREAT | 0600);
	if (shmat(shm, NULL, 0) == (void *)-1)	/* keeps it while nobody else has it attached */
		_exit(1);
	shmctl(shm, IPC_RMID, NULL);

	arena = reserve(ARENA * PAGE);
	huge = reserve(HUGE);
	stack_top = reserve(64 * PAGE) + 64 * PAGE;
}

int main(int argc, char **argv)
{
	static struct task tasks[1 + MAX_THREADS];
	pthread_t thread[MAX_THREADS];
	int seed = argc > 1 ? atoi(argv[1]) : 1;
	int steps = argc > 2 ? atoi(argv[2]) : 2000;

	threads = argc > 3 ? atoi(argv[3]) : 0;
	if (threads < 0 || threads > MAX_THREADS)
		return 1;
	set_up();
	for (int i = 0; i <= threads; i++)
		tasks[i] = (struct task){ .state = seed + 1000003ULL * i, .steps = steps };
	for (int i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, run, &tasks[1 + i]))
			return 1;
	initial_brk = (char *)syscall(SYS_brk, 0);
	work(&tasks[0]);
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return 0;
}
