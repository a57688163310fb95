// SPDX-License-Identifier: GPL-2.0
// A deadline is a value of the guest's TSC: who moves the TSC arms its timer anew.
// changes: arch/x86/kvm/lapic.c 1
// changes: arch/x86/kvm/vmx/vmx.c 1

@ restart @
identifier vcpu;
@@
 void kvm_lapic_restart_hv_timer(struct kvm_vcpu *vcpu)
 {
 ...
 }
+/*
+ * For the vCPU's own thread, when the guest's TSC has moved or the host slept.
+ * The timer stays of its kind: the hardware's is of no use to a vCPU that is
+ * about to block, and this may be called while it does.
+ */
+void kvm_lapic_restart_deadline_timer(struct kvm_vcpu *vcpu)
+{
+	struct kvm_lapic *apic = vcpu->arch.apic;
+
+	if (!lapic_in_kernel(vcpu) || !apic_lvtt_tscdeadline(apic))
+		return;
+
+	/* If it just expires it is pending after this, and stays so. */
+	hrtimer_cancel(&apic->lapic_timer.timer);
+
+	preempt_disable();
+	if (apic->lapic_timer.hv_timer_in_use)
+		restart_apic_timer(apic);
+	else
+		start_sw_timer(apic);
+	preempt_enable();
+}

// The hardware's timer counts at the host's rate; software has moved the TSC further.
@ hardware @
identifier vcpu, vmx;
@@
 vmx_set_hv_timer(struct kvm_vcpu *vcpu, ...)
 {
 ...
+if (kvm_tsc_always_catchup(vcpu))
+	return -ERANGE;
 vmx = to_vmx(vcpu);
 ...
 }
