// SPDX-License-Identifier: Apache-2.0

package enable

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/selinux/container"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
	"github.com/palisade-sec/palisade/target"
)

// Gather reads what a plan is made of. For a root other than / the
// running kernel is not asked.
func Gather(ctx context.Context, root string) (Facts, error) {
	f := Facts{Files: map[string][]byte{}, FreeMiB: -1}
	if root == "" {
		root = "/"
	}
	at := func(name string) string { return filepath.Join(root, name) }
	release, err := readText(at("/etc/os-release"))
	if err != nil {
		if release, err = readText(at("/usr/lib/os-release")); err != nil {
			return f, fmt.Errorf("%s is not the root of a Linux system: %w", root, err)
		}
	}
	f.Distribution, f.Like, f.Pretty = hostfacts.ShellVariable(release, "ID"), hostfacts.ShellVariable(release, "ID_LIKE"), hostfacts.ShellVariable(release, "PRETTY_NAME")
	for _, name := range Files {
		b, err := configfile.Read(at(name))
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		f.Files[name] = b
	}
	if f.Packages, err = installedPackages(at("/var/lib/dpkg/status")); err != nil {
		return f, err
	}
	f.Docker = f.Packages["docker.io"] || f.Packages["docker-ce"] || exists(at("/usr/bin/dockerd")) || exists(at("/usr/sbin/dockerd"))
	f.Kernels = installedKernels(at("/boot"))
	f.HasGrub = exists(at("/etc/default/grub")) && exists(at("/usr/sbin/update-grub"))
	f.Cmdline = grubCmdline(at("/etc/default"))
	f.RootFS = fstabRoot(at("/etc/fstab"))
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil {
		f.FreeMiB = int(min(st.Bavail*uint64(st.Bsize)>>20, 1<<30)) //nolint:gosec // a block size is not negative
	}
	if root == "/" {
		f.Status = hostfacts.Read(ctx, hostfacts.Options{Quick: true})
	}
	f.Labelled = labelled(root)
	j, err := readJournal(root, "selinux")
	if err != nil {
		return f, err
	}
	f.Relabelled = j.has("relabel")
	modules, _ := filepath.Glob(at("/var/lib/selinux/default/active/modules/*/" + container.Name))
	f.ModuleIn = len(modules) > 0
	if err := f.readPolicy(root); err != nil {
		return f, err
	}
	return f, nil
}

// readText is the content of a file with surrounding white space removed.
func readText(path string) (string, error) {
	b, err := configfile.Read(path)
	if err == nil && b == nil {
		err = fs.ErrNotExist
	}
	return strings.TrimSpace(string(b)), err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// installedPackages reads dpkg's status file; none when there is no dpkg.
func installedPackages(path string) (map[string]bool, error) {
	packages := map[string]bool{}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return packages, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	in := bufio.NewScanner(file)
	in.Buffer(nil, 1<<20)
	name := ""
	for in.Scan() {
		if v, ok := strings.CutPrefix(in.Text(), "Package: "); ok {
			name = v
		}
		if in.Text() == "Status: install ok installed" || in.Text() == "Status: hold ok installed" {
			packages[name] = true
		}
	}
	return packages, in.Err()
}

func installedKernels(boot string) []KernelFacts {
	var list []KernelFacts
	files, _ := filepath.Glob(filepath.Join(boot, "config-*"))
	for _, file := range files {
		release := strings.TrimPrefix(filepath.Base(file), "config-")
		if !exists(filepath.Join(boot, "vmlinuz-"+release)) {
			continue // removed, and its configuration left
		}
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		config := hostfacts.ParseKernelConfig(b)
		list = append(list, KernelFacts{
			Release: release, SELinux: config.Built("CONFIG_SECURITY_SELINUX"), AppArmor: config.Built("CONFIG_SECURITY_APPARMOR"), LSM: config["CONFIG_LSM"],
		})
	}
	return list
}

// grubCmdline is what GRUB's configuration puts on the command line. The files
// are shell, of which this understands assignments with or without quotes.
func grubCmdline(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "grub.d", "*.cfg"))
	linux, defaults := "", ""
	for _, file := range append([]string{filepath.Join(dir, "grub")}, files...) {
		text, err := readText(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			value = strings.Trim(value, `"'`)
			switch {
			case !ok:
			case name == "GRUB_CMDLINE_LINUX":
				linux = strings.NewReplacer("${GRUB_CMDLINE_LINUX}", linux, "$GRUB_CMDLINE_LINUX", linux).Replace(value)
			case name == "GRUB_CMDLINE_LINUX_DEFAULT":
				defaults = strings.NewReplacer("${GRUB_CMDLINE_LINUX_DEFAULT}", defaults, "$GRUB_CMDLINE_LINUX_DEFAULT", defaults).Replace(value)
			}
		}
	}
	return strings.TrimSpace(linux + " " + defaults)
}

func fstabRoot(path string) string {
	text, err := readText(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 3 && !strings.HasPrefix(f[0], "#") && f[1] == "/" {
			if f[2] == "auto" {
				return ""
			}
			return f[2]
		}
	}
	return ""
}

// labelled tells whether files that every system has carry a label.
func labelled(root string) bool {
	found := false
	for _, name := range []string{"/", "/etc", "/etc/passwd", "/usr/bin", "/usr/bin/dpkg", "/usr/sbin", "/var/lib", "/usr/lib/os-release"} {
		var b [256]byte
		n, err := unix.Lgetxattr(filepath.Join(root, name), "security.selinux", b[:])
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil || n == 0 || strings.Contains(string(b[:n]), ":unlabeled_t:"):
			return false
		default:
			found = true
		}
	}
	return found
}

// maxPolicy bounds a binary policy; those of distributions have 2 to 4 MiB.
const maxPolicy = 64 << 20

func (f *Facts) readPolicy(root string) error {
	files, _ := filepath.Glob(filepath.Join(root, "/etc/selinux/default/policy/policy.*"))
	if len(files) == 0 {
		return nil
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(len(a), len(b))*2 + cmp.Compare(a, b) })
	name := files[len(files)-1]
	fi, err := os.Stat(name)
	if err != nil || fi.Size() > maxPolicy {
		return fmt.Errorf("%s: is no policy", name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	policy, err := policydb.Parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f.Policy = true
	server := ss.New(policy)
	if !f.ModuleIn {
		// A context of the type is valid when the type is there.
		_, err := server.ParseContext(target.DefaultProcessContext)
		f.ForeignTypes = err == nil
	}
	f.Review, err = review(root, server)
	return err
}

// maxReview bounds how much of a log is read, from its end.
const maxReview = 64 << 20

// review reads the audit log and decides every denial again.
func review(root string, server *ss.Server) (Review, error) {
	var r Review
	path := filepath.Join(root, "/var/log/audit/audit.log")
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read the log of denials: %w", err)
	}
	defer file.Close()
	r.Source = "/var/log/audit/audit.log"
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-maxReview), io.SeekStart)
	}
	in := bufio.NewReaderSize(file, 64<<10)
	seen := map[ReviewedDenial]int{}
	var order []ReviewedDenial
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue // longer than any record
		}
		if len(line) > 0 {
			if a, err := selinux.ParseAVC(string(line)); err == nil && !a.Granted {
				for _, permission := range a.Permissions {
					key := ReviewedDenial{Source: typeOf(a.Source), Target: typeOf(a.Target), Class: a.Class, Permission: permission}
					if seen[key] == 0 {
						if allowedNow(server, a, permission) {
							r.Settled++
							continue
						}
						shown := key
						shown.Command, shown.Path = a.Comm, a.Path
						order = append(order, shown)
					}
					seen[key]++
				}
			}
		}
		if err != nil {
			break
		}
	}
	for _, d := range order {
		d.Count = seen[ReviewedDenial{Source: d.Source, Target: d.Target, Class: d.Class, Permission: d.Permission}]
		r.Open = append(r.Open, d)
	}
	slices.SortStableFunc(r.Open, func(a, b ReviewedDenial) int { return b.Count - a.Count })
	return r, nil
}

func typeOf(context string) string {
	f := strings.SplitN(context, ":", 4)
	if len(f) < 3 {
		return context
	}
	return f[2]
}

func allowedNow(server *ss.Server, a selinux.AVC, permission string) bool {
	source, err1 := server.ParseContext(a.Source)
	object, err2 := server.ParseContext(a.Target)
	if err1 != nil || err2 != nil {
		return false
	}
	if permission == "ioctl" && a.HasIoctl {
		return server.ExplainIoctl(source, object, a.Class, a.Ioctl).Allowed
	}
	e := server.Explain(source, object, a.Class, permission)
	// What is not logged would not have been missed by anybody.
	return e.Allowed || e.DontAudit
}
