# Host detection and probes.
.PHONY: measure-control

measure-control: ## run the probes under runc and rewrite the control that results are compared with
	$(GO) test -count=1 ./internal/probe -run 'TestKernelControl' -measure-control

.PHONY: enable-boot
enable-boot: build ## take a fresh Debian through 'host enable selinux' and two boots (root, ten minutes)
	@./make/enable-boot

.PHONY: enable-boot-apparmor
enable-boot-apparmor: build ## take a fresh Debian through 'host enable apparmor' and a boot (root, some minutes)
	@./make/enable-boot apparmor
