# SELinux engine: what takes longer than everyday tests may.
.PHONY: selinux-confirm selinux-kernel

selinux-confirm: ## 4 000 000 decisions and 210 000 new contexts compared with libsepol (2 minutes)
	PALISADE_FULL=1 REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 60m -v -run 'TestConfirm(Decide|Transition)' ./selinux/ss

selinux-kernel: ## 220 000 questions compared with Debian's kernel (20 minutes)
	PALISADE_FULL=1 REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 120m -v -run 'TestKernel' ./selinux/ss
