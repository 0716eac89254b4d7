// SPDX-License-Identifier: Apache-2.0

package await

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// recorder is a test that only notes how it failed.
type recorder struct {
	testing.TB
	end  time.Time
	text string
}

func (r *recorder) Helper() {}

func (r *recorder) Deadline() (time.Time, bool) { return r.end, !r.end.IsZero() }

func (r *recorder) Fatalf(format string, args ...any) {
	r.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func run(r *recorder, fn func(testing.TB)) string {
	done := make(chan struct{})
	go func() { defer close(done); fn(r) }()
	<-done
	return r.text
}

func TestUntil(t *testing.T) {
	n := 0
	third := func() (bool, error) { n++; return n == 3, nil }
	if s := run(&recorder{}, func(tb testing.TB) { Until(tb, "it", third) }); s != "" || n != 3 {
		t.Errorf("%q after %d", s, n)
	}
	late := &recorder{end: time.Now()}
	if s := run(late, func(tb testing.TB) { True(tb, "the end", func() bool { return false }) }); !strings.HasPrefix(s, "the end did not come about") {
		t.Errorf("%q", s)
	}
	// What holds is seen even where no time is left.
	if s := run(&recorder{end: time.Now()}, func(tb testing.TB) { True(tb, "it", func() bool { return true }) }); s != "" {
		t.Errorf("%q", s)
	}
	broken := func(tb testing.TB) { Until(tb, "it", func() (bool, error) { return false, errors.New("gone") }) }
	if s := run(&recorder{}, broken); s != "while waiting for it: gone" {
		t.Errorf("%q", s)
	}
}
