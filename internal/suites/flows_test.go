// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/enginetest"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// envAll asks for all suites and flows, which take half an hour.
const envAll = "PALISADE_SUITES"

// flow is what a user does with an engine: lines for a shell, whose exit codes and
// output are compared.
type flow struct {
	name  string
	lines []string
	// differs has the lines whose outcome differs, with the reason.
	differs map[string]string
}

// Reasons of differences between an engine's runtime alone and below Palisade.
const (
	allCapabilities = "the policy takes away capabilities that the engine gives"
)

var dockerFlows = []flow{
	{name: "run", lines: []string{
		`docker run --rm busybox echo hi`,
		`docker run --rm busybox sh -c 'exit 3'`,
		`docker run --rm busybox sh -c 'kill -9 $$'`,
		`docker run --rm busybox nosuch 2>/dev/null`,
		`docker run --rm busybox /etc 2>/dev/null`,
		`docker run --rm busybox /etc/passwd 2>/dev/null`,
		`echo text | docker run --rm -i busybox cat`,
		`docker run --rm -t busybox tty`,
		`docker run --rm -u 1000:2000 busybox id`,
		`docker run --rm -u 1000 --group-add 7 busybox id`,
		`docker run --rm -w /tmp busybox pwd`,
		`docker run --rm -e A=b busybox sh -c 'echo $A'`,
		`docker run --rm -h other busybox hostname`,
		`docker run --rm --read-only busybox touch /x`,
		`docker run --rm --tmpfs /t busybox sh -c 'touch /t/x; ls /t'`,
		`docker run --rm --entrypoint echo busybox hi`,
		`docker run --rm --cap-drop ALL busybox grep Cap /proc/self/status`,
		`docker run --rm --cap-add SYS_ADMIN busybox grep CapEff /proc/self/status`,
		`docker run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status`,
		`docker run --rm --device /dev/null:/dev/nothing busybox sh -c 'echo x >/dev/nothing'`,
		`docker run --rm --ulimit nofile=100 busybox sh -c 'ulimit -n'`,
		`docker run --rm --sysctl kernel.msgmax=9000 busybox cat /proc/sys/kernel/msgmax`,
		`docker run --rm --shm-size 1m busybox sh -c 'df /dev/shm | tail -1 | awk "{print \$2}"'`,
	}, differs: map[string]string{
		`docker run --rm --cap-add SYS_ADMIN busybox grep CapEff /proc/self/status`: allCapabilities,
	}},
	{name: "volumes", lines: []string{
		`mkdir -p $WORK/vol && docker run --rm -v $WORK/vol:/vol busybox sh -c 'echo data >/vol/file'; cat $WORK/vol/file`,
		`docker run --rm -v $WORK/vol:/vol:ro busybox sh -c 'cat /vol/file; touch /vol/x 2>&1'`,
		`docker volume create v1`,
		`docker run --rm -v v1:/vol busybox touch /vol/file`,
		`docker run --rm -v v1:/vol busybox ls /vol`,
		`docker volume rm v1`,
	}},
	{name: "exec", lines: []string{
		`docker run -d --name web busybox sh -c 'echo up; trap "exit 5" TERM; while :; do sleep 1; done' >/dev/null`,
		`docker exec web id`,
		`docker exec -u 1000 web id -u`,
		`docker exec -w /tmp web pwd`,
		`docker exec -e A=b web sh -c 'echo $A'`,
		`docker exec web sh -c 'exit 4'`,
		`docker exec web nosuch >/dev/null 2>&1`,
		`docker exec web /etc/passwd >/dev/null 2>&1`,
		`docker exec -t web tty`,
		`echo text | docker exec -i web cat`,
		`docker exec -d web touch /tmp/made`,
		`for i in $(seq 100); do docker exec web test -e /tmp/made && break; sleep 0.1; done; docker exec web ls /tmp`,
		`docker exec web sh -c 'cd /proc/1/root && ls etc; readlink /proc/1/cwd; readlink /proc/1/exe; tr "\0" "\n" </proc/1/environ | grep PATH; ls /proc/1/ns | wc -l'`,
		`docker exec --privileged web sh -c 'grep CapEff /proc/self/status'`,
		`docker run --rm --pid container:web busybox sh -c 'readlink /proc/1/exe; ls /proc/1/root/etc'`,
		`docker top web -o pid,comm,args | awk '{print $2,$3,$4,$5}' | head -2`,
		`docker logs web`,
		`docker cp web:/etc/passwd - | tar -xO | head -1`,
		`echo new >$WORK/new && docker cp $WORK/new web:/tmp/new && docker exec web cat /tmp/new`,
		`docker diff web | sort`,
		`docker pause web && docker inspect -f '{{.State.Status}}' web && docker unpause web`,
		`docker update --memory 64m --memory-swap 64m web`,
		`docker exec web cat /sys/fs/cgroup/memory/memory.limit_in_bytes`,
		`docker stop -t 20 web && docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' web`,
		`docker start web && docker exec web echo again`,
		`docker kill -s KILL web && docker wait web`,
		`docker restart -t 1 web && docker inspect -f '{{.State.Status}}' web`,
		`docker commit web made >/dev/null && docker run --rm made cat /tmp/new`,
		`docker rm -f web && docker rmi made >/dev/null`,
	}, differs: map[string]string{
		`docker exec --privileged web sh -c 'grep CapEff /proc/self/status'`: allCapabilities,
	}},
	{name: "life", lines: []string{
		`docker run -d --name none busybox nosuch >/dev/null 2>&1; echo $?; docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' none; docker rm none`,
		`docker create --name once busybox sh -c 'echo made; exit 2' >/dev/null && docker start -a once; echo $?; docker rm once`,
		`docker run --name loop --restart on-failure:2 busybox sh -c 'exit 1'; for i in $(seq 200); do [ "$(docker inspect -f '{{.State.Status}} {{.RestartCount}}' loop)" = "exited 2" ] && break; sleep 0.1; done; docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}' loop; docker rm loop`,
		`docker run -d --name sick --health-cmd 'test -e /tmp/ok' --health-interval 200ms --health-retries 1 busybox sh -c 'sleep 100' >/dev/null; for i in $(seq 200); do [ "$(docker inspect -f '{{.State.Health.Status}}' sick)" = unhealthy ] && break; sleep 0.1; done; docker inspect -f '{{.State.Health.Status}}' sick`,
		`docker exec sick touch /tmp/ok; for i in $(seq 200); do [ "$(docker inspect -f '{{.State.Health.Status}}' sick)" = healthy ] && break; sleep 0.1; done; docker inspect -f '{{.State.Health.Status}}' sick; docker rm -f sick`,
		`docker run --rm --init busybox sh -c 'cat /proc/1/comm'`,
		`docker run -d --name term busybox sleep 1000 >/dev/null; docker kill -s TERM term; docker stop -t 0 term; docker inspect -f '{{.State.ExitCode}}' term; docker rm term`,
		`docker run -d --rm --name auto busybox true >/dev/null; for i in $(seq 200); do docker inspect auto >/dev/null 2>&1 || break; sleep 0.1; done; docker ps -aq`,
	}},
	{name: "limits", lines: []string{
		`docker run --rm --pids-limit 1 busybox echo one 2>/dev/null`,
		`docker run --rm --pids-limit 2 busybox echo two 2>/dev/null`,
		`docker run --rm --pids-limit 3 busybox sh -c 'echo three'`,
		`docker run --rm --pids-limit 4 busybox sh -c 'ls / >/dev/null; echo four'`,
		`docker run --rm -u 54321 --ulimit nproc=1 busybox echo user`,
		`docker run --rm --memory 6m busybox echo memory`,
		`docker run -d --name few --pids-limit 2 busybox sleep 100 >/dev/null; docker exec few echo in`,
		`docker rm -f few`,
		`docker run -d --name few --pids-limit 3 busybox sleep 100 >/dev/null; docker exec few echo in`,
		`docker rm -f few`,
		`docker run --rm --cpus 0.5 busybox echo cpus`,
		`docker run --rm --oom-score-adj 100 busybox cat /proc/self/oom_score_adj`,
	}},
	{name: "build", lines: []string{
		`mkdir -p $WORK/b && printf 'FROM busybox\nRUN echo built >/file && adduser -D -H someone\nUSER someone\nRUN id -un >/tmp/who\nCMD cat /file /tmp/who\n' >$WORK/b/Dockerfile`,
		`DOCKER_BUILDKIT=0 docker build -q --network none -t built $WORK/b >/dev/null 2>&1`,
		`docker run --rm built`,
		`printf 'FROM busybox\nRUN exit 7\n' >$WORK/b/Dockerfile; DOCKER_BUILDKIT=0 docker build -q --network none $WORK/b >/dev/null 2>&1`,
		`docker rmi built >/dev/null`,
	}},
}

var composeFlow = flow{name: "compose", lines: []string{
	`mkdir -p $WORK/c && printf 'version: "2.4"\nservices:\n  web:\n    image: busybox\n    network_mode: none\n    command: sh -c "echo up; sleep 1000"\n    stop_grace_period: 0s\n  job:\n    image: busybox\n    network_mode: none\n    command: sh -c "exit 6"\n' >$WORK/c/docker-compose.yml`,
	`cd $WORK/c && docker-compose up -d >/dev/null 2>&1`,
	`cd $WORK/c && docker-compose exec -T web id -u`,
	`cd $WORK/c && docker-compose logs --no-color web | tail -1`,
	`cd $WORK/c && docker-compose run --rm web echo once 2>/dev/null`,
	`cd $WORK/c && docker wait $(docker-compose ps -aq job)`,
	`cd $WORK/c && docker-compose restart web >/dev/null 2>&1; docker-compose ps -q web | wc -l`,
	`cd $WORK/c && docker-compose top web | tail -1 | awk '{print $NF}'`,
	`cd $WORK/c && docker-compose stop >/dev/null 2>&1; docker-compose down >/dev/null 2>&1; docker ps -aq`,
}}

// The limits that Podman sets by default are more than every root has.
const podmanRun = `podman run --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --network none `

var podmanFlows = []flow{
	{name: "run", lines: []string{
		podmanRun + `--rm busybox echo hi`,
		podmanRun + `--rm busybox sh -c 'exit 3'`,
		podmanRun + `--rm busybox nosuch 2>/dev/null`,
		podmanRun + `--rm busybox /etc/passwd 2>/dev/null`,
		podmanRun + `--rm -u 1000 busybox id -u`,
		podmanRun + `--rm --read-only busybox touch /x`,
		podmanRun + `--rm --cap-drop all busybox grep Cap /proc/self/status`,
		podmanRun + `--rm -t busybox tty`,
		`echo text | ` + podmanRun + `--rm -i busybox cat`,
		podmanRun + `--rm --preserve-fds 1 busybox cat /proc/self/fd/3 3<$WORK/note`,
		podmanRun + `--rm --pids-limit 2 busybox echo two`,
		podmanRun + `--rm --memory 8m busybox echo memory`,
		podmanRun + `--rm --sdnotify ignore busybox echo notify`,
	}},
	{name: "exec", lines: []string{
		podmanRun + `-d --name web --health-cmd 'test -e /tmp/ok' --health-interval disable busybox sh -c 'echo up; sleep 1000' >/dev/null`,
		`podman exec web id -u`,
		`podman exec -u 1000 -w /tmp web sh -c 'id -u; pwd'`,
		`podman exec web sh -c 'exit 4'`,
		`podman exec web nosuch 2>/dev/null`,
		`podman exec web sh -c 'readlink /proc/1/exe; readlink /proc/1/cwd'`,
		`podman healthcheck run web >/dev/null`,
		`podman exec web touch /tmp/ok; podman healthcheck run web`,
		`podman logs web`,
		`podman top web comm | tail -1`,
		`podman cp web:/etc/passwd $WORK/passwd && head -1 $WORK/passwd`,
		`podman pause web >/dev/null && podman inspect -f '{{.State.Status}}' web && podman unpause web >/dev/null`,
		`podman generate kube web | grep -c image:`,
		`podman stop -t 0 web >/dev/null; podman inspect -f '{{.State.Status}} {{.State.ExitCode}}' web`,
		`podman start web >/dev/null && podman exec web echo again`,
		`podman restart -t 0 web >/dev/null && podman exec web echo again`,
		`podman kill web >/dev/null; podman wait web`,
		`podman commit -q web made >/dev/null && ` + podmanRun + `--rm made echo made`,
		`podman rm -f -t 0 web >/dev/null; podman ps -aq`,
		`podman create --name c --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 busybox sh -c 'echo made; exit 2' >/dev/null && podman start -a c; echo $?; podman rm c >/dev/null`,
		podmanRun + `--name none -d busybox nosuch >/dev/null 2>&1; echo $?; podman inspect -f '{{.State.Status}}' none; podman rm -f none >/dev/null`,
	}},
}

var buildahFlow = flow{name: "buildah", lines: []string{
	`mkdir -p $WORK/bb && cp $WORK/root.tar $WORK/bb/ && printf 'FROM scratch\nADD root.tar /\nRUN echo built >/file && id -u >>/file\nUSER 1000\nRUN id -u >/tmp/who && cat /file\n' >$WORK/bb/Dockerfile`,
	`buildah bud --isolation oci --network none --runtime $RUNTIME --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 -q -t built $WORK/bb >/dev/null`,
	`c=$(buildah from --isolation oci --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 built) && buildah run --isolation oci --network none --runtime $RUNTIME $c -- cat /file /tmp/who; echo $?; buildah run --isolation oci --network none --runtime $RUNTIME --user 0 $c -- sh -c 'exit 6'; echo $?; buildah rm $c >/dev/null`,
	`printf 'FROM built\nUSER 0\nRUN exit 7\n' >$WORK/bb/Dockerfile; buildah bud --isolation oci --network none --runtime $RUNTIME --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 -q $WORK/bb >/dev/null 2>&1`,
	`printf 'FROM built\nUSER 0\nRUN nosuch\n' >$WORK/bb/Dockerfile; buildah bud --isolation oci --network none --runtime $RUNTIME --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 -q $WORK/bb >/dev/null 2>&1`,
}}

// number is what is another in each run: IDs, and where something lies.
var number = regexp.MustCompile(`[0-9a-f]{64}|\b[0-9a-f]{12}\b`)

// outcome is how a line of a flow ended.
type outcome struct {
	Code int
	Out  string
}

// side is a place where flows run: with the runtime alone, or below Palisade.
type side struct {
	h   *enginetest.Host
	env []string
}

func (s *side) do(t *testing.T, line string) outcome {
	t.Helper()
	s.h.Env = s.env
	out, code := s.h.Run(t, "sh", "-c", line)
	out = strings.ReplaceAll(out, s.h.Work, "WORK")
	out = strings.ReplaceAll(number.ReplaceAllString(out, "ID"), "\r", "")
	// Which of two streams comes first is left to chance.
	all := slices.Sorted(strings.SplitSeq(out, "\n"))
	return outcome{code, strings.Trim(strings.Join(all, "\n"), "\n")}
}

// compare runs flows on both sides.
func compare(t *testing.T, bare, below *side, flows []flow) {
	t.Helper()
	for _, f := range flows {
		t.Run(f.name, func(t *testing.T) {
			lines, differ := 0, 0
			for _, line := range f.lines {
				a, b := bare.do(t, line), below.do(t, line)
				lines++
				t.Logf("%s\n%d %s", line, b.Code, b.Out)
				reason := f.differs[line]
				switch {
				case a != b && reason == "":
					t.Errorf("%s\nalone: exit code %d\n%s\nbelow Palisade: exit code %d\n%s", line, a.Code, a.Out, b.Code, b.Out)
				case a == b && reason != "":
					t.Errorf("%s: no difference any more; it was: %s", line, reason)
				case a != b:
					differ++
				}
			}
			t.Logf("%d lines, %d differ by the policy", lines, differ)
		})
	}
}

// newSide builds the programs, with a root file system that has all applets.
func newSide(t *testing.T) *enginetest.Host {
	t.Helper()
	h := enginetest.New(t)
	out, code := h.Run(t, filepath.Join(h.Root, "bin/busybox"), "--list")
	if code != 0 {
		t.Fatal(out)
	}
	for applet := range strings.FieldsSeq(out) {
		_ = os.Symlink("busybox", filepath.Join(h.Root, "bin", applet)) // some are there
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:1::::::\n",
	} {
		if err := os.WriteFile(filepath.Join(h.Root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(h.Root, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Work, "note"), []byte("note\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code := h.Run(t, "tar", "-C", h.Root, "-cf", filepath.Join(h.Work, "root.tar"), "."); code != 0 {
		t.Fatal(out)
	}
	return h
}

func runAll(t *testing.T) {
	t.Helper()
	if os.Getenv(envAll) == "" {
		t.Skip("takes minutes; run: make suites")
	}
}

// dockerSide starts a daemon whose default is the runtime.
func dockerSide(t *testing.T, name, runtime string) *side {
	t.Helper()
	dockerd := oracle.Tool(t, "dockerd", "apt: docker.io")
	oracle.Tool(t, "docker", "apt: docker.io")
	h := newSide(t)
	if runtime == "" {
		runtime = filepath.Join(h.Bin, "palisade-oci")
	}
	h.Env = append(h.Env, "DOCKER_HOST=unix://"+h.Work+"/docker.sock", "WORK="+h.Work)
	ready := func() bool {
		_, code := h.Run(t, "docker", "version")
		return code == 0
	}
	config := filepath.Join(h.Work, "daemon.json")
	b, err := json.Marshal(map[string]any{"runtimes": map[string]any{name: map[string]string{"path": runtime}}, "default-runtime": name})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, b, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Daemon(t, ready, dockerd, "--config-file", config, "--data-root", h.Work+"/data", "--exec-root", h.Work+"/exec", "--pidfile", h.Work+"/pid",
		"-H", "unix://"+h.Work+"/docker.sock", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none", "--storage-driver", "vfs")
	if out, code := h.Run(t, "docker", "import", filepath.Join(h.Work, "root.tar"), "busybox"); code != 0 {
		t.Fatal(out)
	}
	return &side{h, h.Env}
}

// TestConfirmDockerFlows runs what people do with Docker and Compose.
func TestConfirmDockerFlows(t *testing.T) {
	runAll(t)
	bare, below := dockerSide(t, "bare", oracle.Tool(t, "runc", "apt: runc")), dockerSide(t, "palisade", "")
	compare(t, bare, below, dockerFlows)
	oracle.Tool(t, "docker-compose", "apt: docker-compose")
	compare(t, bare, below, []flow{composeFlow})
}

// podmanSide makes a client that keeps everything below the side's folder.
func podmanSide(t *testing.T, runtime string) *side {
	t.Helper()
	podman := oracle.Tool(t, "podman", "apt: podman")
	h := newSide(t)
	if runtime == "" {
		// Podman's monitor calls the runtime with an environment of its own, and its
		// clean-up without the flags for the runtime.
		runtime = filepath.Join(h.Work, "runtime.sh")
		script := fmt.Sprintf("#!/bin/sh\nexec %s/palisade-oci --palisade-state %s/state \"$@\"\n", h.Bin, h.Work)
		if err := os.WriteFile(runtime, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	commands := filepath.Join(h.Work, "commands")
	if err := os.Mkdir(commands, 0o755); err != nil {
		t.Fatal(err)
	}
	storage := fmt.Sprintf("--root %[1]s/storage --runroot %[1]s/run --storage-driver=vfs", h.Work)
	scripts := map[string]string{
		"podman": fmt.Sprintf("exec %s %s --cgroup-manager=cgroupfs --events-backend=file --runtime %s \"$@\"", podman, storage, runtime),
	}
	if buildah, err := exec.LookPath("buildah"); err == nil {
		scripts["buildah"] = fmt.Sprintf("exec %s %s \"$@\"", buildah, storage)
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(commands, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.Env = append(h.Env, "WORK="+h.Work, "RUNTIME="+runtime, "PATH="+commands+":"+os.Getenv("PATH"))
	if out, code := h.Run(t, filepath.Join(commands, "podman"), "import", filepath.Join(h.Work, "root.tar"), "busybox"); code != 0 {
		t.Fatal(out)
	}
	return &side{h, h.Env}
}

// TestConfirmPodmanFlows runs what people do with Podman and Buildah.
func TestConfirmPodmanFlows(t *testing.T) {
	runAll(t)
	runc := oracle.Tool(t, "runc", "apt: runc")
	bare, below := podmanSide(t, runc), podmanSide(t, "")
	compare(t, bare, below, podmanFlows)
	oracle.Tool(t, "buildah", "apt: buildah")
	compare(t, bare, below, []flow{buildahFlow})
}
