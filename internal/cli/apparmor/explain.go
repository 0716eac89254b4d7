// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/audit"
	"github.com/palisade-sec/palisade/internal/cli/answer"
)

// maxAuditLine bounds one record; the kernel's have less than 9 KiB.
const maxAuditLine = 1 << 20

// explainedRecord is the answer about one kind of request.
type explainedRecord struct {
	Record     audit.AppArmorRecord `json:"record"`
	Suggestion *audit.Suggestion    `json:"suggestion,omitempty"`
	Count      int                  `json:"count"`
}

func newExplainCommand(e *answer.Env) *cobra.Command {
	var asProfile bool
	cmd := &cobra.Command{
		Use:   "explain [flags] [FILE...]",
		Short: "Say what audit lines report and which rule each of them asks for",
		Long: `Reads AppArmor's audit lines (apparmor="DENIED" …) from files or standard input, in
any form in which auditd, the kernel log, syslog or dbus-daemon write them, and
says of each what was asked and which rule would allow it. Other lines are passed
over; the same request is said once, with its count.

A rule is as narrow as the record, and is no advice to allow what was asked.
Exit code 1 when there is no AppArmor record in the input.`,
		Example: `  dmesg | palisade apparmor explain
  palisade apparmor explain --profile-text /var/log/audit/audit.log`,
		RunE: func(_ *cobra.Command, args []string) error {
			var all []*explainedRecord
			byKey := map[string]*explainedRecord{}
			add := func(line string) {
				rec, ok := audit.AppArmor(line)
				if !ok {
					return
				}
				x := &explainedRecord{Record: rec, Count: 1}
				if s, ok := rec.Suggest(); ok {
					x.Suggestion = &s
				}
				key := requestKey(x)
				if old := byKey[key]; old != nil {
					old.Count++
					return
				}
				byKey[key] = x
				all = append(all, x)
			}
			if len(args) == 0 {
				args = []string{"-"}
			}
			for _, name := range args {
				if err := eachRecord(e, name, add); err != nil {
					return err
				}
			}
			switch {
			case e.JSON:
				if err := e.PrintJSON(slices.Clip(append([]*explainedRecord{}, all...))); err != nil {
					return err
				}
			case asProfile:
				if err := printSuggested(e.Stdout, all); err != nil {
					return err
				}
			default:
				for _, x := range all {
					printExplained(e.Stdout, x)
				}
			}
			if len(all) == 0 {
				return answer.No(answer.Fail(errors.New("no AppArmor record in the input")).Hint("records look like: apparmor=\"DENIED\" operation=…; see dmesg or /var/log/audit/audit.log"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asProfile, "profile-text", false, "print only the rules, as profiles")
	return cmd
}

// eachRecord calls use for every record of a file, continuation lines joined.
func eachRecord(e *answer.Env, name string, use func(string)) error {
	in := e.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReaderSize(in, 64<<10)
	pending := ""
	flush := func() {
		if pending != "" {
			use(pending)
			pending = ""
		}
	}
	for {
		line, err := readLine(r)
		switch {
		case line == "":
		case (line[0] == ' ' || line[0] == '\t') && strings.Contains(pending, "msg='") && !strings.Contains(line, "audit("):
			pending += "\n" + line
		default:
			flush()
			pending = line
		}
		if errors.Is(err, io.EOF) {
			flush()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readLine reads a line and cuts what is beyond the bound.
func readLine(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		part, err := r.ReadSlice('\n')
		if b.Len() < maxAuditLine {
			b.Write(part)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return strings.TrimRight(b.String(), "\r\n"), err
		}
	}
}

// requestKey is equal for records of the same request at different times.
func requestKey(x *explainedRecord) string {
	r := x.Record
	r.AuditID, r.Epoch, r.Serial, r.PID, r.PeerPID, r.Task, r.Parent = "", 0, 0, 0, 0, 0, 0
	return fmt.Sprintf("%+v", r)
}

func printExplained(w io.Writer, x *explainedRecord) {
	r := x.Record
	fmt.Fprintf(w, "%s %s", strings.ToUpper(r.Event.String()), quoted(r.Operation))
	if o := object(r); o != "" {
		fmt.Fprintf(w, " of %s", quoted(o))
	}
	if r.Denied != "" {
		fmt.Fprintf(w, " (%s)", quoted(r.Denied))
	}
	if r.Profile != "" {
		fmt.Fprintf(w, ", profile %s", quoted(r.Profile))
	}
	if r.Command != "" {
		fmt.Fprintf(w, ", by %s", quoted(r.Command))
	}
	if r.PID != 0 {
		fmt.Fprintf(w, " (pid %d)", r.PID)
	}
	if x.Count > 1 {
		fmt.Fprintf(w, ", %d times", x.Count)
	}
	fmt.Fprintln(w)
	if r.Info != "" {
		fmt.Fprintf(w, "  kernel: %s\n", quoted(r.Info))
	}
	if x.Suggestion == nil {
		return
	}
	if x.Suggestion.Rule != nil {
		fmt.Fprintf(w, "  rule:   %s\n", apparmor.String(x.Suggestion.Rule))
	}
	if x.Suggestion.Advice != "" {
		fmt.Fprintf(w, "  note:   %s\n", x.Suggestion.Advice)
	}
}

// quoted keeps what processes chose from acting on the terminal.
func quoted(s string) string { return answer.OneLine(s) }

// object is what a request was about.
func object(r audit.AppArmorRecord) string {
	net := r.Family
	if r.SockType != "" {
		net += " " + r.SockType
	}
	for _, o := range []string{r.Name, r.Addr, r.PeerAddr, r.ForeignAddr, r.Path, r.Name2, r.Peer, net} {
		if o != "" {
			return o
		}
	}
	return ""
}

// printSuggested prints the rules profile by profile, each once.
func printSuggested(w io.Writer, all []*explainedRecord) error {
	var order []string
	files := map[string]*apparmor.File{}
	seen := map[string]bool{}
	for _, x := range all {
		s := x.Suggestion
		if s == nil || s.Rule == nil {
			continue
		}
		if key := s.Profile + "\x00" + apparmor.String(s.Rule); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		f := files[s.Profile]
		if f == nil {
			files[s.Profile] = s.File()
			order = append(order, s.Profile)
			continue
		}
		into := f.Items[0].(*apparmor.Profile)
		if strings.Contains(s.Profile, "//") {
			into = into.Rules[0].(*apparmor.Profile)
		}
		into.Rules = append(into.Rules, s.Rule)
	}
	for i, name := range order {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := apparmor.Print(w, files[name]); err != nil {
			return err
		}
	}
	return nil
}
