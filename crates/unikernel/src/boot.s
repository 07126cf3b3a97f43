# PVH entry: the monitor jumps here in flat 32-bit protected mode, paging off, ebx = address of hvm_start_info.
# Maps the first 4 GiB onto itself with 2 MiB pages, turns on SSE and long mode, and calls kmain(start_info).
    .section .note.Xen, "a", @note
    .align 4
    .long 4                     # length of the name
    .long 4                     # length of the descriptor
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start
    .align 4

    .section .boot.text, "ax", @progbits
    .code32
    .global pvh_start
pvh_start:
    cli
    cld
    mov esp, offset stack_top
    mov edi, ebx                # first argument of kmain
    mov eax, offset pdpt
    or  eax, 3                  # present, writable
    mov [pml4], eax
    mov eax, offset pd
    or  eax, 3
    xor ecx, ecx
2:  mov [pdpt + ecx*8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 2b
    mov eax, 0x83               # present, writable, 2 MiB
    xor ecx, ecx
3:  mov [pd + ecx*8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne 3b
    mov eax, offset pml4
    mov cr3, eax
    mov eax, cr4
    or  eax, 0x620              # PAE, OSFXSR, OSXMMEXCPT: core's code uses SSE registers
    mov cr4, eax
    mov ecx, 0xc0000080         # EFER
    rdmsr
    or  eax, 0x900              # long mode, no-execute
    wrmsr
    mov eax, cr0
    and eax, 0xfffffffb         # no emulation
    or  eax, 0x80010002         # paging, write protection in ring 0, monitor coprocessor
    mov cr0, eax
    lgdt [gdt_pointer]
    ljmp 0x08, offset long_mode
    .code64
long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset stack_top
    xor ebp, ebp
    call kmain
4:  hlt
    jmp 4b

    .section .rodata.boot, "a", @progbits
    .align 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: 64-bit code
    .quad 0x00cf93000000ffff    # 0x10: data
gdt_pointer:
    .word 23
    .long gdt
    .long 0

    .section .bss.boot, "aw", @nobits
    .align 4096
pml4: .skip 4096
pdpt: .skip 4096
pd:   .skip 16384
stack: .skip 262144
stack_top:
