// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/analysis"
)

type preflightResult struct {
	Source   string             `json:"source"`
	Process  string             `json:"process"`
	Content  string             `json:"content"`
	Findings []analysis.Finding `json:"findings"`
}

func newPreflightCommand(e *answer.Env) *cobra.Command {
	var (
		src         policyFlags
		engine, lxc string
		bundles     []string
	)
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Say beforehand whether containers can start with their labels, and why not",
		Long: `Checks what containers are to be labelled with against a policy: the defaults that
engines take from lxc_contexts, and the labels in OCI configurations. What the
kernel would answer with "invalid argument" is said as a sentence. Ends with exit
code 1 when a container could not start.`,
		Example: `  palisade selinux preflight
  palisade selinux preflight --policy policy.33 --lxc-contexts ./lxc_contexts --bundle ./bundle`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			server, err := src.server(e)
			if err != nil {
				return err
			}
			var out []preflightResult
			if len(bundles) == 0 || lxc != "" {
				r, err := lxcDefaults(lxc)
				if err != nil {
					return err
				}
				out = append(out, r...)
			}
			for _, b := range bundles {
				r, err := bundleLabels(b)
				if err != nil {
					return err
				}
				out = append(out, r)
			}
			bad := 0
			for i := range out {
				out[i].Findings = analysis.Preflight(server, analysis.Launch{Engine: engine, Process: out[i].Process, Content: out[i].Content})
				if out[i].Findings == nil {
					out[i].Findings = []analysis.Finding{}
				}
				bad += len(out[i].Findings)
			}
			if e.JSON {
				if err := e.PrintJSON(out); err != nil {
					return err
				}
			} else {
				for _, r := range out {
					if len(r.Findings) == 0 {
						fmt.Fprintf(e.Stdout, "%s: %s can start\n", r.Source, orNone(r.Process))
					}
					for _, f := range r.Findings {
						fmt.Fprintf(e.Stdout, "%s: %s\n", r.Source, f.Message)
						if f.Hint != "" {
							fmt.Fprintf(e.Stdout, "  hint: %s\n", f.Hint)
						}
					}
				}
			}
			if bad > 0 {
				return answer.No(nil)
			}
			return nil
		},
	}
	src.register(cmd)
	src.registerSet(cmd)
	f := cmd.Flags()
	f.StringVar(&engine, "engine", "system_u:system_r:initrc_t:s0", "`context` of the process that starts containers")
	f.StringVar(&lxc, "lxc-contexts", "", "`file` with the engines' defaults (default: that of the host's policy)")
	f.StringArrayVar(&bundles, "bundle", nil, "OCI bundle or config.json to check (may be given again)")
	return cmd
}

func orNone(label string) string {
	if label == "" {
		return "a container without a label"
	}
	return label
}

// lxcDefaults reads the defaults that go-selinux gives to Docker, Podman,
// containerd and CRI-O.
func lxcDefaults(path string) ([]preflightResult, error) {
	if path == "" {
		store, err := hostStore()
		if err != nil {
			return nil, answer.Fail(fmt.Errorf("no lxc_contexts: %w", err)).Hint("name it with --lxc-contexts, or a container with --bundle")
		}
		path = filepath.Join(store, "contexts", "lxc_contexts")
	}
	b, err := readPolicyFile(path)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); ok && !strings.HasPrefix(key, "#") {
			values[key] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	if values["process"] == "" || values["file"] == "" {
		return nil, answer.No(fmt.Errorf("%s names no process and no file context", path))
	}
	out := []preflightResult{{Source: path + " (process, file)", Process: values["process"], Content: values["file"]}}
	if ro := values["ro_file"]; ro != "" {
		out = append(out, preflightResult{Source: path + " (process, ro_file)", Process: values["process"], Content: ro})
	}
	for _, other := range []string{"init_process", "kvm_process", "sandbox_lxc_process"} {
		if p := values[other]; p != "" && p != values["process"] {
			out = append(out, preflightResult{Source: path + " (" + other + ", file)", Process: p, Content: values["file"]})
		}
	}
	return out, nil
}

func bundleLabels(path string) (preflightResult, error) {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		path = filepath.Join(path, "config.json")
	}
	b, err := readPolicyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return preflightResult{}, answer.Fail(err).Hint("a bundle is a folder with a config.json, as 'runc spec' makes it")
	}
	if err != nil {
		return preflightResult{}, err
	}
	var spec struct {
		Process *struct {
			SelinuxLabel string `json:"selinuxLabel"`
		} `json:"process"`
		Linux *struct {
			MountLabel string `json:"mountLabel"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return preflightResult{}, answer.No(fmt.Errorf("%s: %w", path, err))
	}
	r := preflightResult{Source: path}
	if spec.Process != nil {
		r.Process = spec.Process.SelinuxLabel
	}
	if spec.Linux != nil {
		r.Content = spec.Linux.MountLabel
	}
	return r, nil
}
