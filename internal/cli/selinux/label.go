// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/filecontext"
)

type pathLabel struct {
	Path    string `json:"path"`
	Context string `json:"context"` // "<<none>>" where nothing is to be labelled
	Pattern string `json:"pattern,omitempty"`
	Source  string `json:"source,omitempty"` // file:line:column of the pattern
}

var fileKinds = map[string]filecontext.Kind{
	"any": filecontext.Any, "file": filecontext.Regular, "dir": filecontext.Directory, "lnk_file": filecontext.Symlink,
	"chr_file": filecontext.Char, "blk_file": filecontext.Block, "sock_file": filecontext.Socket, "fifo_file": filecontext.Pipe,
}

func newLabelCommand(e *answer.Env) *cobra.Command {
	var contexts, kind string
	var batch bool
	cmd := &cobra.Command{
		Use:   "label PATH…",
		Short: "Say which context paths are to have, and which line decides",
		Long: `Says which context paths are to have by the file contexts of a policy, with the
line that decides. Reads file_contexts with its .homedirs, .local, .subs and
.subs_dist beside it.`,
		Example: `  palisade selinux label /etc/shadow /var/lib/docker
  palisade selinux label --contexts ./file_contexts --kind dir --json /srv`,
		RunE: func(_ *cobra.Command, args []string) error {
			want, ok := fileKinds[kind]
			if kind != "" && !ok {
				return answer.Fail(fmt.Errorf("--kind %s: no such kind of file", kind)).Hint("file, dir, lnk_file, chr_file, blk_file, sock_file, fifo_file or any")
			}
			if len(args) == 0 && !batch {
				return answer.Fail(errors.New("selinux label: no path given")).Hint("--batch reads paths from standard input")
			}
			m, err := loadFileContexts(contexts)
			if err != nil {
				return err
			}
			out := []pathLabel{}
			look := func(path string) {
				k := want
				if kind == "" {
					k = kindOnDisk(path)
				}
				l := pathLabel{Path: path, Context: filecontext.None}
				if got, ok := m.Lookup(path, k); ok {
					l = pathLabel{path, got.Context, got.Pattern, got.Span.String()}
				}
				switch {
				case e.JSON:
					out = append(out, l)
				case batch:
					fmt.Fprintf(e.Stdout, "%s\t%s\n", path, l.Context)
				case l.Pattern == "":
					fmt.Fprintf(e.Stdout, "%s\t%s\n", path, l.Context)
				default:
					fmt.Fprintf(e.Stdout, "%s\t%s\t(%s, %s)\n", path, l.Context, l.Pattern, l.Source)
				}
			}
			for _, path := range args {
				look(path)
			}
			if batch {
				err := e.EachLine(func(_ int, path string) error {
					look(path)
					return nil
				})
				if err != nil {
					return err
				}
			}
			if e.JSON {
				return e.PrintJSON(out)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&contexts, "contexts", "", "file_contexts to read (default: those of the host's policy)")
	f.StringVar(&kind, "kind", "", "kind of file: file, dir, lnk_file, … or any (default: what the path is on this host, else any)")
	f.BoolVar(&batch, "batch", false, "read paths from standard input, one a line")
	return cmd
}

func kindOnDisk(path string) filecontext.Kind {
	fi, err := os.Lstat(path)
	if err != nil {
		return filecontext.Any
	}
	switch m := fi.Mode(); {
	case m.IsRegular():
		return filecontext.Regular
	case m.IsDir():
		return filecontext.Directory
	case m&fs.ModeSymlink != 0:
		return filecontext.Symlink
	case m&fs.ModeCharDevice != 0:
		return filecontext.Char
	case m&fs.ModeDevice != 0:
		return filecontext.Block
	case m&fs.ModeSocket != 0:
		return filecontext.Socket
	default:
		return filecontext.Pipe
	}
}

func loadFileContexts(path string) (*filecontext.Map, error) {
	if path == "" {
		store, err := hostStore()
		if err != nil {
			return nil, answer.Fail(fmt.Errorf("no file contexts: %w", err)).Hint("name them with --contexts FILE")
		}
		path = filepath.Join(store, "contexts", "files", "file_contexts")
	}
	read := func(name string, optional bool) (filecontext.File, error) {
		b, err := readPolicyFile(name)
		if optional && errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return filecontext.File{Name: name, Text: b}, err
	}
	var s filecontext.Sources
	var errs []error
	for i, suffix := range []string{"", ".homedirs", ".local"} {
		f, err := read(path+suffix, i > 0)
		s.Specs = append(s.Specs, f)
		errs = append(errs, err)
	}
	var err1, err2 error
	s.Subs, err1 = read(path+".subs", true)
	s.SubsDist, err2 = read(path+".subs_dist", true)
	if err := errors.Join(append(errs, err1, err2)...); err != nil {
		return nil, err
	}
	m, list := filecontext.Parse(s)
	if err := list.Err(); err != nil {
		return nil, answer.No(err)
	}
	return m, nil
}
