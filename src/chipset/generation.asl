/* The generation id: 16 bytes that are other ones in each machine that was forked or restored (MS-VMGENID), and an event when they change. */
DefinitionBlock ("", "SSDT", 2, "UMBRA", "UMBRAGEN", 1)
{
    Scope (\_SB)
    {
        Device (VGEN)
        {
            Name (HIDS, "Hyper_V_Gen_Counter_V1") /* iasl refuses them as constants: they are no PNP ids */
            Name (CIDS, Package (2) { "VM_Gen_Counter", "VMGENCTR" })
            Method (_HID, 0, Serialized) { Return (HIDS) }
            Method (_CID, 0, Serialized) { Return (CIDS) }
            Name (_UID, 0)
            Name (_DDN, "VM_Gen_Counter")
            Method (_STA) { Return (0x0F) }
            Name (ADDR, Package (2) { 0x000F0000, 0 })
        }
    }
    Scope (\_GPE)
    {
        Method (_E00) { Notify (\_SB.VGEN, 0x80) }
    }
}
