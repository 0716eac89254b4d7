// SPDX-License-Identifier: Apache-2.0

// Command gostatic is a static Go program for the conformance tests: goroutines
// on several threads, files, time, a child, and garbage to collect.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"time"
)

func main() {
	var wg sync.WaitGroup
	sums := make([]string, 50)
	for i := range sums {
		wg.Go(func() {
			b := []byte(strings.Repeat(fmt.Sprint(i), 10_000))
			sums[i] = fmt.Sprintf("%x", sha256.Sum256(b))[:8]
			time.Sleep(time.Millisecond)
		})
	}
	wg.Wait()
	fmt.Println(strings.Join(sums, " "))
	dir, err := os.MkdirTemp(".", "go")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := range 20 {
		if err := os.WriteFile(fmt.Sprintf("%s/%02d", dir, i), []byte(sums[i]), 0o600); err != nil {
			fmt.Println(err)
		}
	}
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	fmt.Println(names, err)
	out, err := exec.Command("/bin/echo", "from a child").CombinedOutput()
	fmt.Printf("%s%v\n", out, err)
	fmt.Println(os.RemoveAll(dir))
	os.Exit(9)
}
