// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

// TestWatch plays the last step's part, a hostile one included.
func TestWatch(t *testing.T) {
	mismatch := errors.New("less is in force")
	for name, row := range map[string]struct {
		send   []string // the first before the answer, the second after
		verify error
		pid    bool
		err    string
		is     error
	}{
		"executed":             {send: []string{"R"}, pid: true},
		"not executed":         {send: []string{"R", "E\x7f\x02"}, pid: true, err: `exec "cmd": no such file or directory`},
		"mismatch":             {send: []string{"R"}, verify: mismatch, pid: true, err: "less is in force", is: mismatch},
		"refused":              {send: []string{"Fpalisade-init: no"}, err: "palisade-init: no"},
		"refused with escapes": {send: []string{"Fa\x1b[2Jb\n\xff"}, err: "a?[2Jb??"},
		"refused at length":    {send: []string{"F" + strings.Repeat("x", 3000)}, err: strings.Repeat("x", laststep.MaxMessage-1)},
		"nothing":              {},
		"another message":      {send: []string{"X"}, err: errMessage.Error(), is: errMessage},
		"longer report":        {send: []string{"RR"}, err: errMessage.Error(), is: errMessage},
		"empty refusal":        {send: []string{"F"}, err: errMessage.Error(), is: errMessage},
		"error first":          {send: []string{"E\x7f\x02"}, err: errMessage.Error(), is: errMessage},
		"other words after":    {send: []string{"R", "hello"}, pid: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := New()
			if err != nil {
				t.Fatal(err)
			}
			defer g.Ours.Close()
			theirs := g.Theirs
			ended := make(chan string, 1)
			go func() {
				defer theirs.Close()
				var answer string
				for _, m := range row.send {
					_, _ = unix.Write(int(theirs.Fd()), []byte(m))
					if m == "R" {
						b := make([]byte, 16)
						n, _ := unix.Read(int(theirs.Fd()), b)
						answer = string(b[:max(n, 0)])
					}
				}
				ended <- answer
			}()
			verified := 0
			g.Watch("cmd", func(pid int) error { verified = pid; return row.verify })
			answer := <-ended
			<-g.Done
			switch {
			case row.err == "" && g.Err != nil, row.err != "" && (g.Err == nil || g.Err.Error() != row.err):
				t.Errorf("%v, want %q", g.Err, row.err)
			case row.is != nil && !errors.Is(g.Err, row.is):
				t.Errorf("%v is not %v", g.Err, row.is)
			}
			if (g.PID == os.Getpid()) != row.pid || verified != g.PID {
				t.Errorf("process %d, verified %d", g.PID, verified)
			}
			want := ""
			if row.pid && row.verify == nil {
				want = string(laststep.Go)
			}
			if answer != want {
				t.Errorf("answered %q, want %q", answer, want)
			}
		})
	}
}
