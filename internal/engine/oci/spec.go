// SPDX-License-Identifier: Apache-2.0

// Package oci speaks the languages of OCI engines and runtimes: the runtime
// configuration (config.json), the process of an exec, what engines keep about
// their containers, and the command lines of runtimes.
//
// A configuration is read by this package and by the runtime that it is handed
// to. [decode] accepts only documents that both read in the same way; [Edit] puts
// a container's confinement into one, and [CheckMounts], [CheckRoot] and
// [CheckStateReach] refuse what would undo it. What was asked of an engine, but
// did not reach the configuration, is read by [readDemand].
package oci

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/internal/strictjson"
)

// decode reads a configuration. The error wraps a [*strictjson.Error].
func decode(raw []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := strictjson.Unmarshal(raw, &s, strictjson.AllowUnknown); err != nil {
		return nil, fmt.Errorf("read OCI configuration: %w", err)
	}
	return &s, nil
}

// decodeProcess reads the process of an exec, as [decode] reads a configuration.
func decodeProcess(raw []byte) (*specs.Process, error) {
	var p specs.Process
	if err := strictjson.Unmarshal(raw, &p, strictjson.AllowUnknown); err != nil {
		return nil, fmt.Errorf("read OCI process: %w", err)
	}
	return &p, nil
}

// Annotations of crun that say where calls that a filter hands over are answered.
//
// Source: crun 1.8.1, src/libcrun/container.c, get_seccomp_receiver_fd.
var crunReceivers = []string{"run.oci.seccomp.receiver", "run.oci.seccomp.plugins"}

// filterStaysWithRuntime reports whether the system call filter of s has to be
// installed by the runtime and not by the last step, and why:
//
//   - startContainer hooks run inside the container before the last step. The
//     runtime runs them under the filter of its configuration.
//   - A filter that hands calls over needs the runtime, which passes the
//     listener on. An agent at listenerPath waits for it, whether a rule asks
//     for it or not.
func filterStaysWithRuntime(s *specs.Spec) (stays bool, reason string) {
	if s.Hooks != nil && len(s.Hooks.StartContainer) > 0 {
		return true, "startContainer hooks run before the last step"
	}
	for _, name := range crunReceivers {
		if _, ok := s.Annotations[name]; ok {
			return true, "annotation " + name + " hands system calls over"
		}
	}
	if s.Linux == nil || s.Linux.Seccomp == nil {
		return false, ""
	}
	filter := s.Linux.Seccomp
	if filter.ListenerPath != "" {
		return true, "an agent at listenerPath waits for the filter"
	}
	if filter.DefaultAction == specs.ActNotify {
		return true, "the filter hands system calls over"
	}
	for _, rule := range filter.Syscalls {
		if rule.Action == specs.ActNotify {
			return true, "the filter hands system calls over"
		}
	}
	return false, ""
}

// Annotations of this project. Of what a configuration says about the edit, the
// ID alone is kept: it marks a container as ours in the state of its runtime,
// whichever state folder its record is in. What was applied is in the record.
const (
	// annotationID names the container that the configuration was edited for.
	annotationID = annotationPrefix + "id"
	// annotationRequest asks for another built-in policy, which can only tighten.
	annotationRequest = annotationPrefix + "request"
	// annotationSELinux asks for an SELinux label, where the engine has no option
	// for one: parts as in Docker's --security-opt label=, separated by semicolons.
	annotationSELinux = annotationPrefix + "selinux"

	annotationPrefix = "io.github.palisade-sec."
)

// isBind reports whether a mount binds a file or folder of the host, and whether
// it ends up read-only. Of contradicting options the last one counts.
//
// Source: runc libcontainer/specconv, parseMountOptions; crun src/libcrun/linux.c,
// do_mounts. Both go by the options; a type "bind" without one fails or binds.
func isBind(m specs.Mount) (bind, readOnly bool) {
	bind = m.Type == "bind"
	for _, o := range m.Options {
		switch o {
		case "bind", "rbind":
			bind = true
		case "ro", "rro":
			readOnly = true
		case "rw", "rrw":
			readOnly = false
		}
	}
	return bind, readOnly
}

// hasOption reports whether a mount has one of the options "name=value" and
// returns the values.
func optionValues(m specs.Mount, name string) []string {
	var out []string
	for _, o := range m.Options {
		for part := range strings.SplitSeq(o, ",") {
			if v, ok := strings.CutPrefix(part, name+"="); ok {
				out = append(out, v)
			}
		}
	}
	return out
}
