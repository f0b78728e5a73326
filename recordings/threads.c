// SPDX-License-Identifier: GPL-2.0-only
/*
 * threads [ROUNDS [THREADS]]: threads race on one mm.
 *
 * Each round one thread makes a fresh mapping, and all of them touch it at the same moment: which of them
 * prepares its anon_vma?  Then each maps, protects, unmaps and allocates for itself, so that mappings of
 * different threads merge and split.  Now and then one forks while the others go on.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define MAX_THREADS 16
#define KEPT 32

static int rounds = 60, threads = 4;
static char *fresh;
static pthread_barrier_t barrier;

static unsigned int pick(uint64_t *state, unsigned int n)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned int)(*state >> 33) % n;
}

static char *map(size_t pages)
{
	char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static void fork_and_write(void)
{
	pid_t child = fork();

	if (child == 0) {
		fresh[0]++;
		map(2)[0] = 1;
		_exit(0);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}

static void own_work(uint64_t *state)
{
	struct { char *at; size_t pages; } kept[KEPT] = { 0 };

	for (int k = 0; k < 40; k++) {
		int slot = pick(state, KEPT);
		char *heap;

		if (kept[slot].at)
			munmap(kept[slot].at, kept[slot].pages * PAGE);
		kept[slot].pages = 1 + pick(state, 8);
		kept[slot].at = map(kept[slot].pages);
		kept[slot].at[pick(state, kept[slot].pages) * PAGE] = 1;
		if (pick(state, 3) == 0)
			mprotect(kept[slot].at, PAGE, PROT_READ);
		if (pick(state, 3) == 0 && kept[slot].pages > 2) {
			mprotect(kept[slot].at + PAGE, PAGE, PROT_NONE);
			/* the last page: what is unmapped belongs to the other threads at once */
			munmap(kept[slot].at + --kept[slot].pages * PAGE, PAGE);
		}

		heap = malloc(1 + pick(state, 300000));
		if (heap)
			memset(heap, 1, 1);
		free(heap);
	}
	for (int slot = 0; slot < KEPT; slot++)
		if (kept[slot].at)
			munmap(kept[slot].at, kept[slot].pages * PAGE);
}

static void *run(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	uint64_t state = me * 77 + 5;

	for (int round = 0; round < rounds; round++) {
		pthread_barrier_wait(&barrier);
		if (me == 0)
			fresh = map(MAX_THREADS);
		pthread_barrier_wait(&barrier);
		fresh[me * PAGE] = 1;
		own_work(&state);
		if (pick(&state, 16) == 0)
			fork_and_write();
		/* nobody may still fork with the old mapping when it goes */
		pthread_barrier_wait(&barrier);
		if (me == 0)
			munmap(fresh, MAX_THREADS * PAGE);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread[MAX_THREADS];

	if (argc > 1)
		rounds = atoi(argv[1]);
	if (argc > 2)
		threads = atoi(argv[2]);
	if (threads < 1 || threads > MAX_THREADS)
		return 1;
	pthread_barrier_init(&barrier, NULL, threads);
	for (uintptr_t i = 0; i < (uintptr_t)threads; i++)
		if (pthread_create(&thread[i], NULL, run, (void *)i))
			return 1;
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	return 0;
}
