// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/target"
)

func (r *reader) kernel() KernelStatus {
	var k KernelStatus
	release, err := r.read("/proc/sys/kernel/osrelease")
	if r.live {
		var u unix.Utsname
		if uerr := unix.Uname(&u); uerr == nil {
			release, err = unix.ByteSliceToString(u.Release[:]), nil
		}
		k.Arch = machine()
	} else if arch, aerr := r.read("/proc/sys/kernel/arch"); aerr == nil {
		k.Arch = arch
	}
	if err == nil {
		k.Kernel, err = target.ParseKernel(release)
	}
	if err != nil {
		k.cannotTell("kernel release", err)
	}
	r.loadConfig(k.Release)
	k.Config = r.configPath
	k.Why = "newer kernels enforce more: Landlock needs 5.13, network rules of Landlock 6.7, notified system calls that can be waited for 5.19"
	k.Detail = k.Release + " " + k.Arch
	return k
}

// loadConfig reads the kernel configuration from the first place that has it.
func (r *reader) loadConfig(release string) {
	candidates := []string{"/proc/config.gz"}
	// A release is one path element; anything else would lead elsewhere.
	if release != "" && !strings.ContainsAny(release, "/\x00") {
		candidates = append(candidates,
			"/boot/config-"+release,
			"/lib/modules/"+release+"/config",
			"/usr/lib/modules/"+release+"/config",
			"/usr/lib/ostree-boot/config-"+release)
	}
	for _, name := range candidates {
		b, err := os.ReadFile(r.path(name))
		if err != nil || len(b) > maxFile {
			continue
		}
		if strings.HasSuffix(name, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				continue
			}
			b, err = io.ReadAll(io.LimitReader(z, maxFile))
			if err != nil {
				continue
			}
		}
		r.config, r.configPath = ParseKernelConfig(b), name
		return
	}
}

// KernelConfig is the configuration of a kernel by option: y, m, a number or a
// string for what is set, n for what is explicitly not. Nil means that it is not
// known.
type KernelConfig map[string]string

// ParseKernelConfig reads the file that distributions install as /boot/config-RELEASE.
func ParseKernelConfig(text []byte) KernelConfig {
	config := make(KernelConfig)
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "# CONFIG_"); ok {
			if name, ok := strings.CutSuffix(name, " is not set"); ok {
				config["CONFIG_"+name] = "n"
			}
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if ok && strings.HasPrefix(name, "CONFIG_") {
			config[name] = strings.Trim(value, `"`)
		}
	}
	return config
}

// Built reports whether the option is compiled in. An option whose dependencies
// are off has no line at all, which also means no.
func (c KernelConfig) Built(option string) target.Answer {
	if c == nil {
		return target.Unknown
	}
	v := c[option]
	return target.AnswerOf(v != "" && v != "n")
}
