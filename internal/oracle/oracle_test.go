// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// recorder is a test that only notes how it ended.
type recorder struct {
	testing.TB
	how, text string
}

func (r *recorder) Helper() {}

func (r *recorder) end(how, format string, args []any) {
	r.how, r.text = how, fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) { r.end("failed", format, args) }
func (r *recorder) Skipf(format string, args ...any)  { r.end("skipped", format, args) }
func (r *recorder) Fatal(args ...any)                 { r.end("failed", "%s", []any{fmt.Sprint(args...)}) }

func recorded(t *testing.T, fn func(testing.TB)) *recorder {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() { defer close(done); fn(r) }()
	<-done
	return r
}

// TestCHelper: what is missing on the machine skips, what is wrong in our program fails.
func TestCHelper(t *testing.T) {
	Tool(t, "cc", "apt: gcc libc6-dev")
	t.Setenv("PALISADE_TEST_CACHE", t.TempDir())
	for _, tt := range []struct {
		name, source string
		flags        []string
		how, text    string
	}{
		{"good", "#include <stdio.h>\nint main(void) { return 0; }\n", nil, "", ""},
		{"wrong", "#include <stdio.h>\nint main(void) { return nothing; }\n", nil, "failed", "nothing"},
		{"no-main", "#include <stdio.h>\n#define TWO(a) \\\n  (a)\nint f(void) { return 0; }\n", nil, "failed", "main"},
		{"no-header", "#include <no/such/header.h>\nint main(void) { return 0; }\n", nil, "skipped", "header.h"},
		{"other-system", "#ifdef NO_SUCH_SYSTEM\n#include <no/such/header.h>\n#endif\nint main(void) { return nothing; }\n", nil, "failed", "nothing"},
		{"no-library", "int main(void) { return 0; }\n", []string{"-lno-such-library"}, "skipped", "apt: it"},
		{"wrong-and-library", "int main(void) { return nothing; }\n", []string{"-lm"}, "failed", "nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, required := range []string{"", "1"} {
				t.Setenv("REQUIRE_ORACLES", required)
				source := filepath.Join(t.TempDir(), tt.name+".c")
				if err := os.WriteFile(source, []byte(tt.source), 0o600); err != nil {
					t.Fatal(err)
				}
				bin := ""
				r := recorded(t, func(tb testing.TB) { bin = CHelper(tb, source, "apt: it", tt.flags...) })
				want := tt.how
				if want == "skipped" && required != "" {
					want = "failed"
				}
				if r.how != want || !strings.Contains(r.text, tt.text) {
					t.Errorf("required %q: %q (%s), want %q with %q", required, r.how, r.text, want, tt.text)
				}
				if want == "" {
					if err := exec.Command(bin).Run(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

func TestTool(t *testing.T) {
	for required, want := range map[string]string{"": "skipped", "1": "failed"} {
		t.Setenv("REQUIRE_ORACLES", required)
		r := recorded(t, func(tb testing.TB) { Tool(tb, "no-such-program", "apt: it") })
		if r.how != want || r.text != "no no-such-program here (apt: it)" {
			t.Errorf("%q: %q (%s)", required, r.how, r.text)
		}
	}
}
