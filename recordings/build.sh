#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A parallel build: make -j4 of a generated C project.
# Usage: build.sh [FILES]
set -eu
files=${1:-40}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

for i in $(seq "$files"); do
    cat >"part$i.c" <<-C
	#include <stdio.h>
	#include <stdlib.h>
	#include <string.h>
	static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
	int part$i(int n)
	{
		int *v = calloc(n + $i, sizeof(*v)), sum = 0;
		for (int k = 0; k < n; k++)
			v[k] = k * $i % 31;
		qsort(v, n, sizeof(*v), compare);
		for (int k = 0; k < n; k += 2)
			sum += v[k];
		free(v);
		return sum;
	}
	C
done
{
    for i in $(seq "$files"); do echo "int part$i(int);"; done
    echo "int main(void) { int sum = 0;"
    for i in $(seq "$files"); do echo "sum += part$i(100);"; done
    echo "return sum == 0; }"
} >main.c
cat >Makefile <<-'MAKE'
	CFLAGS = -O2 -pipe
	program: $(patsubst %.c,%.o,$(wildcard *.c)) ; $(CC) -o $@ $^
MAKE
make -s -j4 program
./program
