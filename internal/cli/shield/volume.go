// SPDX-License-Identifier: Apache-2.0

package shield

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/sealfs"
	"github.com/palisade-sec/palisade/shield/shim"
	"github.com/palisade-sec/palisade/shield/volfile"
)

// sealPolicy is the file of seal --policy.
type sealPolicy struct {
	Regions    []sealfs.Region `yaml:"regions"`
	Freshness  string          `yaml:"freshness"`
	IntervalMS int64           `yaml:"interval_ms"`
}

func readSealPolicy(name string) (sealfs.Policy, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return sealfs.Policy{}, err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	var y sealPolicy
	if err := d.Decode(&y); err != nil && !errors.Is(err, io.EOF) {
		return sealfs.Policy{}, fmt.Errorf("%s: %w", name, err)
	}
	p := sealfs.Policy{Regions: y.Regions, Freshness: sealfs.AtFsync, Interval: time.Duration(y.IntervalMS) * time.Millisecond}
	if y.Freshness != "" {
		if err := p.Freshness.UnmarshalText([]byte(y.Freshness)); err != nil {
			return p, fmt.Errorf("%s: %w", name, err)
		}
	}
	p, err = p.Normalize()
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func newSealCommand(e *answer.Env) *cobra.Command {
	var keyFile, output, policyFile string
	var force bool
	var jobs int
	cmd := &cobra.Command{
		Use:   "seal DIR|IMAGE",
		Short: "Seal a directory or an image into an encrypted, authenticated volume",
		Long: `Makes a volume of everything below a directory, of a tar archive, or of a container
image (an OCI layout, or an archive from 'docker save' or 'podman save'). The volume
appears under its name when it is complete.

` + keyHelp + `

The policy says what each part of the tree needs; without one, everything is encrypted:
  regions:
    - {path: /, class: encrypted}
    - {path: /usr, class: authenticated}   # readable by the host, not changeable
    - {path: /tmp, class: ephemeral}       # in memory, empty at each start
    - {path: /proc, class: passthrough}    # the host's own
    - {path: /root, class: denied}
  freshness: at-fsync                      # or in-run, at-exit, interval (with interval_ms)`,
		Example: "  palisade shield seal ./app -o app.vol --key-file app.key --policy regions.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := sealfs.Options{}
			if policyFile != "" {
				p, err := readSealPolicy(policyFile)
				if err != nil {
					return err
				}
				opts.Policy = p
			}
			key, err := readKey(e, keyFile)
			if err != nil {
				return err
			}
			defer clear(key)
			entries, done, err := sealSource(args[0], filepath.Dir(output))
			if err != nil {
				return err
			}
			defer done()
			bar := newProgress(e, "sealing")
			var s sealfs.Sealed
			err = volfile.Create(output, force, func(f *volfile.File) (err error) {
				defer bar.end()
				s, err = sealfs.Seal(f, key, opts, sealfs.Source{Entries: entries, Facts: shim.Facts, Workers: jobs, Total: bar.total, Progress: bar.add})
				return err
			})
			if errors.Is(err, os.ErrExist) {
				return answer.Fail(err).Hint("--force replaces the volume")
			}
			if err != nil {
				return err
			}
			return printSealed(e, output, s)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&output, "output", "o", "", "`VOLUME` to make (required)")
	fl.StringVar(&keyFile, "key-file", "", "`FILE` with the volume's key: 32 bytes, or hex or base64 of 32 bytes (required)")
	fl.StringVar(&policyFile, "policy", "", "`FILE` with regions and freshness, in YAML")
	fl.BoolVar(&force, "force", false, "replace an existing volume")
	fl.IntVar(&jobs, "jobs", 0, "`N` files sealed side by side; 0: one a processor")
	_ = cmd.MarkFlagRequired("output")
	_ = cmd.MarkFlagRequired("key-file")
	return cmd
}

// sealSource opens what is to be sealed.
func sealSource(name, spoolDir string) (iter.Seq2[sealfs.Entry, error], func(), error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if fi.IsDir() && !volfile.IsImage(name) {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, nil, err
		}
		return volfile.Directory(root), func() { root.Close() }, nil
	}
	l, err := volfile.OpenImage(name)
	if err != nil {
		return nil, nil, err
	}
	seq, closeSpool, err := volfile.Archive(l, spoolDir)
	if err != nil {
		return nil, nil, err
	}
	return seq, func() { closeSpool() }, nil
}

func printSealed(e *answer.Env, name string, s sealfs.Sealed) error {
	if e.JSON {
		return e.PrintJSON(map[string]any{
			"volume": name, "generation": s.Root.Generation, "root_digest": fmt.Sprintf("%x", s.Root.Digest), "root": s.Root.String(),
			"files": s.Files, "others": s.Others, "bytes": s.Bytes, "volume_bytes": s.Volume, "skipped": append([]string{}, s.Skipped...),
		})
	}
	fmt.Fprintf(e.Stdout, "sealed   %d files (%s) and %d directories, links and others\n", s.Files, bytesOf(s.Bytes), s.Others)
	fmt.Fprintf(e.Stdout, "volume   %s, %s\n", name, bytesOf(s.Volume))
	fmt.Fprintf(e.Stdout, "root     %s\n", s.Root)
	if n := len(s.Skipped); n > 0 {
		fmt.Fprintf(e.Stdout, "left out %d names in regions that a volume does not keep, such as %s\n", n, s.Skipped[0])
	}
	return nil
}

func newVerifyCommand(e *answer.Env) *cobra.Command {
	return newCheckCommand(e, "verify", "say whether everything in a volume is what was sealed or written into it",
		`Reads the whole volume and verifies every tag: each file, each name, the root.
Exit code 0: all of it verifies; 1: something does not (all of it is listed);
125: it could not be opened, for example because the key is another one.`)
}

func newFsckCommand(e *answer.Env) *cobra.Command {
	return newCheckCommand(e, "fsck", "check a volume's structure and list all damage",
		`Verifies every tag as verify does, and checks that each block is used once, that link
counts and parents are right and that every inode can be reached. Nothing is changed:
blocks that a crash left behind are free by themselves, and orphans (files that were
unlinked while open) are released by the next writer.`)
}

func newCheckCommand(e *answer.Env, use, short, long string) *cobra.Command {
	var f volumeFlags
	var quick bool
	cmd := &cobra.Command{
		Use: use + " VOLUME", Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options()
			if err != nil {
				return err
			}
			return withVolumeFile(e, args[0], &f, false, func(dev *volfile.File, key []byte) error {
				bar := newProgress(e, use)
				r, err := sealfs.Check(dev, key, o, sealfs.CheckOptions{MetadataOnly: quick, Total: bar.total, Progress: bar.add})
				bar.end()
				if err != nil {
					return refused(e, use, args[0], err)
				}
				return printReport(e, args[0], r)
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&quick, "metadata-only", false, "leave the contents of files out")
	return cmd
}

// refused answers verify and fsck for a volume that does not even open.
func refused(e *answer.Env, use, name string, err error) error {
	if !errors.Is(err, sealfs.ErrCorrupt) && !errors.Is(err, sealfs.ErrNoRoot) && !errors.Is(err, sealfs.ErrStale) {
		return volumeError(name, err)
	}
	if e.JSON {
		if err := e.PrintJSON(map[string]any{"ok": false, "problems": []sealfs.Problem{{Text: err.Error()}}}); err != nil {
			return err
		}
	}
	return answer.No(fmt.Errorf("%s: %w", name, err))
}

func printReport(e *answer.Env, name string, r sealfs.Report) error {
	ok := len(r.Problems) == 0
	if e.JSON {
		if r.Problems == nil {
			r.Problems = []sealfs.Problem{}
		}
		err := e.PrintJSON(struct {
			OK bool `json:"ok"`
			sealfs.Report
		}{ok, r})
		if err != nil || ok {
			return err
		}
		return answer.No(nil)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(e.Stdout, "%s: %s\n", name, answer.OneLine(p.String()))
	}
	for _, n := range r.Notes {
		e.Warnf("%s", n)
	}
	fmt.Fprintf(e.Stdout, "%s: generation %d, %d files (%s), %d directories, %d others, %d of %d blocks used", name, r.Generation, r.Files, bytesOf(r.Bytes), r.Directories, r.Others, r.BlocksUsed, r.Blocks)
	if r.Orphans > 0 {
		fmt.Fprintf(e.Stdout, ", %d orphans", r.Orphans)
	}
	fmt.Fprintln(e.Stdout)
	if !ok {
		return answer.No(fmt.Errorf("%s: %d problems found", name, len(r.Problems)))
	}
	_, err := fmt.Fprintln(e.Stdout, "ok")
	return err
}

func newInfoCommand(e *answer.Env) *cobra.Command {
	var f volumeFlags
	cmd := &cobra.Command{
		Use: "info VOLUME", Short: "Show a volume's identity, generation, root and regions", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(e, args[0], &f, false, func(v *sealfs.Volume) error {
				s := v.Summary()
				if e.JSON {
					return e.PrintJSON(s)
				}
				w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
				fmt.Fprintf(w, "volume\t%s\n", s.VolumeID)
				fmt.Fprintf(w, "suite\t%s\n", s.Suite)
				fmt.Fprintf(w, "root\t%v\n", v.Root())
				fmt.Fprintf(w, "committed\t%s\n", s.Committed.Format(time.RFC3339))
				fmt.Fprintf(w, "size\t%s\n", bytesOf(s.Bytes))
				fmt.Fprintf(w, "freshness\t%v\n", s.Freshness)
				for _, r := range s.Regions {
					fmt.Fprintf(w, "region\t%v %s\n", r.Class, answer.OneLine(r.Path))
				}
				return w.Flush()
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newListCommand(e *answer.Env) *cobra.Command {
	var f volumeFlags
	var long, recursive bool
	cmd := &cobra.Command{
		Use: "ls VOLUME [PATH]", Short: "List what a volume holds", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			at := "/"
			if len(args) > 1 {
				at = path.Join("/", args[1])
			}
			return withVolume(e, args[0], &f, false, func(v *sealfs.Volume) error {
				l := &lister{e: e, v: v, long: long, recursive: recursive, rows: []listRow{}}
				return l.print(at)
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVarP(&long, "long", "l", false, "modes, owners, sizes and times")
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "directories below, with full paths")
	return cmd
}

type listRow struct {
	Path    string       `json:"path"`
	Type    string       `json:"type"`
	Class   sealfs.Class `json:"class"`
	Mode    string       `json:"mode"`
	UID     uint32       `json:"uid"`
	GID     uint32       `json:"gid"`
	Links   uint32       `json:"links"`
	Size    int64        `json:"size"`
	ModTime time.Time    `json:"mtime"`
	Target  string       `json:"target,omitempty"`
	Inode   uint32       `json:"inode"`
}

type lister struct {
	e         *answer.Env
	v         *sealfs.Volume
	long      bool
	recursive bool
	rows      []listRow
}

func (l *lister) print(at string) error {
	info, err := l.v.Stat(at)
	if err != nil {
		return err
	}
	if info.Type == sealfs.Dir {
		err = l.dir(at, "")
	} else {
		err = l.row(at, at)
	}
	if err != nil {
		return err
	}
	if l.e.JSON {
		return l.e.PrintJSON(l.rows)
	}
	w := tabwriter.NewWriter(l.e.Stdout, 0, 8, 1, ' ', 0)
	for _, r := range l.rows {
		name := answer.OneLine(r.Path)
		if !l.long {
			fmt.Fprintln(l.e.Stdout, name)
			continue
		}
		if r.Target != "" {
			name += " -> " + answer.OneLine(r.Target)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\n", r.Mode, r.Links, r.UID, r.GID, r.Size, r.ModTime.Format("2006-01-02 15:04"), name)
	}
	return w.Flush()
}

func (l *lister) dir(at, shown string) error {
	list, err := l.v.ReadDir(at)
	if err != nil {
		return err
	}
	for _, d := range list {
		full, name := path.Join(at, d.Name), d.Name
		if l.recursive {
			name = shown + "/" + d.Name
		}
		if err := l.row(full, name); err != nil {
			return err
		}
		if l.recursive && d.Type == sealfs.Dir {
			if err := l.dir(full, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) row(at, shown string) error {
	i, err := l.v.Lstat(at)
	if err != nil {
		return err
	}
	r := listRow{
		Path: shown, Type: i.Type.String(), Class: i.Class, UID: i.UID, GID: i.GID, Links: i.Links, Size: i.Size,
		ModTime: i.ModTime.UTC(), Inode: i.Inode, Mode: modeString(i),
	}
	if i.Type == sealfs.Symlink {
		if r.Target, err = l.v.Readlink(at); err != nil {
			return err
		}
	}
	l.rows = append(l.rows, r)
	return nil
}

// modeString is the mode as ls prints it.
func modeString(i sealfs.Info) string {
	b := []byte(strings.Repeat("-", 10))
	b[0] = "?-dlpscb?"[i.Type]
	for n, c := range []byte("rwxrwxrwx") {
		if i.Mode>>(8-n)&1 != 0 {
			b[n+1] = c
		}
	}
	for _, s := range []struct {
		bit uint32
		at  int
		c   byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if i.Mode&s.bit != 0 {
			if b[s.at] == '-' {
				s.c -= 'a' - 'A'
			}
			b[s.at] = s.c
		}
	}
	return string(b)
}

func newCatCommand(e *answer.Env) *cobra.Command {
	var f volumeFlags
	cmd := &cobra.Command{
		Use: "cat VOLUME PATH…", Short: "Print files of a volume", Args: cobra.MinimumNArgs(2),
		Long: `Prints files of a volume, each chunk after it was verified: what is printed is true, and
when something does not verify, printing stops there with an error.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(e, args[0], &f, false, func(v *sealfs.Volume) error {
				for _, name := range args[1:] {
					in, err := v.Open(name)
					if err != nil {
						return err
					}
					err = copyOut(e, in)
					in.Close()
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
				}
				return nil
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newCopyCommand(e *answer.Env) *cobra.Command {
	var f volumeFlags
	var own bool
	cmd := &cobra.Command{
		Use:   "cp SOURCE… TARGET",
		Short: "Copy files out of a volume, or into it",
		Long: `Copies files or directories out of a volume (VOLUME:/path … TARGET) or files into one
(FILE… VOLUME:/path). What was copied in is there as a whole when the command has
succeeded, and not at all otherwise.`,
		Example: "  palisade shield cp app.vol:/etc/app ./etc --key-file app.key\n  palisade shield cp app.conf app.vol:/etc/app/ --key-file app.key",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := args[len(args)-1]
			sources := args[:len(args)-1]
			vol, in, toVolume := splitVolumePath(target)
			if toVolume {
				return withVolume(e, vol, &f, true, func(v *sealfs.Volume) error {
					for _, src := range sources {
						if err := volfile.CopyIn(v, src, in); err != nil {
							return err
						}
					}
					root, err := v.Commit()
					if err != nil {
						return err
					}
					return printCopied(e, len(sources), target, &root)
				})
			}
			total := 0
			for _, src := range sources {
				vol, from, ok := splitVolumePath(src)
				if !ok {
					return answer.Fail(fmt.Errorf("neither %q nor %q is in a volume", src, target)).Hint("write VOLUME:/path for a file in a volume")
				}
				err := withVolume(e, vol, &f, false, func(v *sealfs.Volume) error {
					n, skipped, err := volfile.Extract(v, from, target, own)
					if total += n; len(skipped) > 0 {
						e.Warnf("%d fifos, sockets and devices were not copied, such as %s", len(skipped), answer.OneLine(skipped[0]))
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			return printCopied(e, total, target, nil)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&own, "owner", false, "set owners and set-id bits on what is copied out (as root)")
	return cmd
}

func printCopied(e *answer.Env, n int, target string, root *sealfs.Root) error {
	if e.JSON {
		out := map[string]any{"files": n, "target": target}
		if root != nil {
			out["root"] = root.String()
		}
		return e.PrintJSON(out)
	}
	_, err := fmt.Fprintf(e.Stdout, "copied %d files to %s\n", n, target)
	if root != nil {
		_, err = fmt.Fprintf(e.Stdout, "root     %s\n", root)
	}
	return err
}

// splitVolumePath takes VOLUME:/path apart. A host path is written with a slash
// before a colon, or without ":/".
func splitVolumePath(s string) (vol, in string, ok bool) {
	i := strings.LastIndex(s, ":/")
	if i <= 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func newRekeyCommand(e *answer.Env) *cobra.Command {
	var f volumeFlags
	var newKeyFile, output string
	cmd := &cobra.Command{
		Use:   "rekey VOLUME",
		Short: "Seal a volume again under a new key",
		Long: `Reads and verifies everything in the volume and writes it again under the new key. The
new volume takes the old one's place when it is complete; it keeps the volume's
identity, its generation is one higher, and free space is gone. The old file's blocks
are not overwritten: who copied them can still read them with the old key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			newKey, err := readKey(e, newKeyFile)
			if err != nil {
				return err
			}
			defer clear(newKey)
			if output == "" {
				output = args[0]
			}
			var s sealfs.Sealed
			// The exclusive lock keeps writers of the old volume out until the new one is in place.
			err = withVolumeFile(e, args[0], &f, true, func(dev *volfile.File, key []byte) error {
				if bytes.Equal(key, newKey) {
					return errors.New("the new key is the old one")
				}
				o, err := f.options()
				if err != nil {
					return err
				}
				o.ReadOnly = true
				v, err := sealfs.Open(dev, key, o)
				if err != nil {
					return volumeError(args[0], err)
				}
				defer v.Close()
				bar := newProgress(e, "sealing")
				return volfile.Create(output, true, func(out *volfile.File) error {
					defer bar.end()
					s, err = sealfs.Seal(out, newKey, sealfs.Options{Policy: v.Policy(), VolumeID: v.VolumeID(), Generation: v.Root().Generation + 1},
						sealfs.Source{Entries: volfile.Volume(v), Total: bar.total, Progress: bar.add})
					return volumeError(args[0], err)
				})
			})
			if err != nil {
				return err
			}
			return printSealed(e, output, s)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&newKeyFile, "new-key-file", "", "`FILE` with the new key (required)")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the new volume here and leave the old one alone")
	_ = cmd.MarkFlagRequired("new-key-file")
	return cmd
}
