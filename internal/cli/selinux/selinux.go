// SPDX-License-Identifier: Apache-2.0

// Package selinux is the command line of SELinux: policies read, asked, explained,
// searched, compared and proved.
package selinux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// verbList lists the verbs of the noun, one a line and in alphabetical order.
var verbList = []func(*answer.Env) *cobra.Command{
	newBooleanCommand,
	newCreateCommand,
	newDecideCommand,
	newDiffCommand,
	newDomainsCommand,
	newExplainCommand,
	newFlowCommand,
	newInfoCommand,
	newIsolateCommand,
	newLabelCommand,
	newMemberCommand,
	newPreflightCommand,
	newReencodeCommand,
	newRelabelCommand,
	newSearchCommand,
	newTransitionCommand,
	newValidateTransCommand,
}

// Command is "palisade selinux".
func Command(e *answer.Env) *cobra.Command {
	verbs := make([]*cobra.Command, len(verbList))
	for i, v := range verbList {
		verbs[i] = v(e)
	}
	return answer.Group("selinux", "SELinux policies: read, ask, explain, search, compare and prove, without an SELinux host", verbs...)
}

// policyFlags are the flags of the verbs that read a policy.
type policyFlags struct {
	policy string
	set    []string
}

func (s *policyFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.policy, "policy", "", "policy to read: a file, a store such as /etc/selinux/default, or 'kernel'; without it the kernel's or the host's own")
}

// registerSet adds the what-if flag of verbs whose answer depends on booleans.
func (s *policyFlags) registerSet(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.set, "set", nil, "answer as if a boolean were set, NAME=on or NAME=off; may be repeated")
}

const (
	selinuxfsPolicy = "/sys/fs/selinux/policy"
	selinuxConfig   = "/etc/selinux/config"
)

// path finds the file that --policy means.
func (s *policyFlags) path() (string, error) {
	switch s.policy {
	case "kernel":
		return selinuxfsPolicy, nil
	case "":
		if _, err := os.Stat(selinuxfsPolicy); err == nil {
			return selinuxfsPolicy, nil
		}
		store, err := hostStore()
		if err != nil {
			return "", answer.Fail(fmt.Errorf("no policy: this kernel does not run SELinux and %w", err)).Hint("name a policy with --policy FILE")
		}
		return newestPolicy(store)
	}
	fi, err := os.Stat(s.policy)
	if err != nil {
		return "", err
	}
	if fi.IsDir() {
		return newestPolicy(s.policy)
	}
	return s.policy, nil
}

// hostStore returns the folder of the policy that the host is configured for.
func hostStore() (string, error) {
	data, err := os.ReadFile(selinuxConfig)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); ok && name != "" && !strings.ContainsAny(name, "/ ") {
			return filepath.Join(filepath.Dir(selinuxConfig), name), nil
		}
	}
	return "", fmt.Errorf("%s names no SELINUXTYPE", selinuxConfig)
}

// newestPolicy returns the policy file with the highest version in a store.
func newestPolicy(store string) (string, error) {
	for _, dir := range []string{filepath.Join(store, "policy"), store} {
		files, err := filepath.Glob(filepath.Join(dir, "policy.*"))
		if err != nil {
			return "", err
		}
		best, version := "", -1
		for _, f := range files {
			if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(f), "policy.")); err == nil && n > version {
				best, version = f, n
			}
		}
		if best != "" {
			return best, nil
		}
	}
	return "", answer.Fail(fmt.Errorf("no policy.N in %s", store)).Hint("a store is a folder such as /etc/selinux/default")
}

// maxPolicy is more than any policy has; Debian's has 2 MB.
const maxPolicy = 128 << 20

// load reads and checks the policy. A file that is no policy is an answer, one
// that cannot be read is a failure.
func (s *policyFlags) load(e *answer.Env) (*policydb.Policy, error) {
	path, err := s.path()
	if err != nil {
		return nil, err
	}
	data, err := readPolicyFile(path)
	if err != nil {
		return nil, err
	}
	p, err := policydb.Load(data)
	if err != nil {
		err = answer.Fail(fmt.Errorf("%s: %w", path, err)).Hint("%s", policyHint(err))
		return nil, answer.No(err)
	}
	for _, w := range p.Warnings() {
		e.Warnf("%s: %s", path, w)
	}
	return p, nil
}

func readPolicyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The limit holds for what has no size, too: a pipe, a device.
	data, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("%s: a policy of more than %d MiB", path, maxPolicy>>20)
	}
	return data, nil
}

// policyHint says what to do about a file that is no policy.
func policyHint(err error) string {
	var parse *policydb.ParseError
	switch {
	case !errors.As(err, &parse):
		return "the kernel would refuse to load this policy too"
	case strings.Contains(parse.Found, "module"):
		return "modules are linked into a policy by semodule or secilc; name the linked policy.N"
	case parse.Section == "header":
		return "expected a kernel policy, for example /etc/selinux/default/policy/policy.33"
	case parse.Found == "":
		return "the file is cut off"
	}
	return "the file is damaged"
}

// server loads the policy and applies --set.
func (s *policyFlags) server(e *answer.Env) (*ss.Server, error) {
	values, err := parseBooleans(s.set)
	if err != nil {
		return nil, err
	}
	p, err := s.load(e)
	if err != nil {
		return nil, err
	}
	server := ss.New(p)
	if len(values) == 0 {
		return server, nil
	}
	server, err = server.WithBooleans(values)
	if err != nil {
		return nil, answer.Fail(err).Hint("'palisade selinux boolean' lists the booleans of a policy")
	}
	return server, nil
}

// parseBooleans reads NAME=on and NAME=off.
func parseBooleans(settings []string) (map[string]bool, error) {
	values := map[string]bool{}
	for _, s := range settings {
		name, value, ok := strings.Cut(s, "=")
		switch {
		case !ok || name == "":
			return nil, answer.Fail(fmt.Errorf("%q sets no boolean", s)).Hint("write NAME=on or NAME=off")
		case value == "on" || value == "true" || value == "1":
			values[name] = true
		case value == "off" || value == "false" || value == "0":
			values[name] = false
		default:
			return nil, answer.Fail(fmt.Errorf("%q is no value of a boolean", value)).Hint("write %s=on or %s=off", name, name)
		}
	}
	return values, nil
}
