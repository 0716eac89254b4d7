// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/palisade-sec/palisade/target"
)

// maxFeatures bounds the feature tree; kernels have about fifty files.
const maxFeatures = 4096

func (r *reader) apparmor(ctx context.Context, active target.Answer) AppArmorStatus {
	s := AppArmorStatus{Line: Line{
		Why: "confines by path what a container may open, mount and signal; the layer of Docker's docker-default on Debian and Ubuntu",
	}}
	if path := r.find("apparmor_parser"); path != "" {
		s.Parser = "installed"
		if v := r.version(ctx, path, "--version"); v != "" {
			s.Parser = v
		}
	}
	enabled, enabledErr := r.read("/sys/module/apparmor/parameters/enabled")
	built := r.config.Built("CONFIG_SECURITY_APPARMOR")
	const enable = "palisade host enable apparmor (shows the plan; nothing is changed without --apply)"
	switch {
	case active == target.Yes || active == target.Unknown && enabled == "Y":
	case active == target.No && (built == target.Yes || enabledErr == nil):
		s.State, s.DockerDefault = target.Off, target.No
		s.Detail, s.Enable = "built in, not in the list of active modules", enable
		return s
	case active == target.No:
		s.State, s.DockerDefault = target.Absent, target.No
		s.Detail, s.Enable = "the kernel does not have it", "boot a kernel with CONFIG_SECURITY_APPARMOR=y"
		if built == target.Unknown {
			s.Detail = "not in the list of active modules; whether the kernel has it could not be told"
		}
		return s
	default:
		s.cannotTell("whether AppArmor is active", errors.New("the list of active modules cannot be read"))
		return s
	}
	s.State = target.Enforcing
	if enabled == "N" {
		s.State, s.Enable = target.Off, enable
	}
	if r.security == "" {
		s.cannotTell("features and profiles", r.securityErr)
		s.Detail = "active"
		return s
	}
	dir := r.security + "/apparmor"
	features, err := readFeatures(dir + "/features")
	if err != nil {
		s.cannotTell("features", err)
	}
	s.Features = features
	profiles, err := readFile(dir + "/profiles")
	if err != nil {
		s.cannotTell("profiles", err)
		s.Detail = fmt.Sprintf("active, %s", plural(len(features), "feature"))
	} else {
		s.Loaded = parseProfiles(profiles)
		s.Profiles = map[string]int{}
		for _, mode := range s.Loaded {
			s.Profiles[mode]++
		}
		s.DockerDefault = target.AnswerOf(s.Loaded["docker-default"] != "")
		total := 0
		for _, n := range s.Profiles {
			total += n
		}
		s.Detail = fmt.Sprintf("active, %s loaded, %d of them enforce; docker-default is %s", plural(total, "profile"), s.Profiles["enforce"],
			map[target.Answer]string{target.Yes: "loaded", target.No: "not loaded (Docker loads it when it starts a container)"}[s.DockerDefault])
	}
	if s.Parser == "" {
		s.Detail += "; no apparmor_parser"
	}
	return s
}

// readFeatures reads the tree of feature files: path below dir to content.
func readFeatures(dir string) (map[string]string, error) {
	features := make(map[string]string)
	// The root may be a symbolic link of /proc/self/fd, which WalkDir does not follow.
	err := filepath.WalkDir(dir+"/.", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		if len(features) >= maxFeatures {
			return fmt.Errorf("more than %d files", maxFeatures)
		}
		text, err := readFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		features[name] = text
		return nil
	})
	if err != nil && len(features) == 0 {
		return nil, err
	}
	return features, err
}

// find is the path of a program, looked for where root's would be; empty when
// it is not there. Relative entries of PATH are not trusted.
func (r *reader) find(name string) string {
	dirs := []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	if r.live {
		dirs = append(filepath.SplitList(os.Getenv("PATH")), dirs...)
	}
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		fi, err := os.Stat(r.path(path))
		if err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
