# Containers: the tests with engines need them installed (make/apt/runtime.txt),
# the benchmark needs runc and crun.

.PHONY: engines bench-run

engines: deps build ## tests through runc, Docker, Podman, containerd and libvirt; nothing may be missing
	@for p in dockerd podman ctr; do PATH=$$PATH:/usr/sbin:/sbin command -v $$p >/dev/null || { echo "palisade: no $$p here; run: apt-get install -y --no-install-recommends docker.io podman containerd" >&2; exit 1; }; done
	REQUIRE_ORACLES=1 $(GO) test -count=1 -v -timeout 20m -run 'TestConfirm(Runc|Docker|Podman|Containerd|Libvirt|CRI)$$' ./internal/engine/oci ./internal/engine/lxc

bench-run: ## palisade run against plain runc run, in alternating pairs
	$(GO) test -run '^$$' -bench 'BenchmarkRun$$' -benchtime 40x ./internal/container

bench:: bench-run

.PHONY: libvirt-kill
libvirt-kill: deps ## kill a domain's watcher and its controller at a hundred moments each of its start
	REQUIRE_ORACLES=1 LIBVIRT_KILLS=100 $(GO) test -count=1 -v -timeout 30m -run 'TestConfirmLibvirt$$' ./internal/engine/lxc

.PHONY: cmdline-differential
cmdline-differential: deps ## 100,000 random command lines each, against what runc and crun take of them
	REQUIRE_ORACLES=1 CMDLINE_LINES=$${CMDLINE_LINES:-100000} $(GO) test -count=1 -v -timeout 60m -run 'TestConfirm(Runc|Crun)(CommandLine|Table)$$' ./internal/engine/oci

kill-moments: ## kill palisade-oci at MOMENTS (2000) random moments of create, start, exec and delete
	REQUIRE_ORACLES=1 PALISADE_MOMENTS=$(or $(MOMENTS),2000) $(GO) test -count=1 -timeout 120m -v -run TestKillMoments ./internal/engine/oci

.PHONY: failopen
failopen: deps ## every way into a container with every fault: refused, or fully in force
	FAILOPEN=1 REQUIRE_ORACLES=1 $(GO) test -count=1 -v -timeout 60m -run 'TestConfirmFailOpenTable$$' ./internal/engine/oci
