/* The VMBus, where the Hyper-V interface is offered. */
DefinitionBlock ("", "SSDT", 2, "UMBRA", "UMBRABUS", 1)
{
    External (\_SB.VMOD, DeviceObj)
    Scope (\_SB.VMOD)
    {
        Device (VMBS)
        {
            Name (HIDS, "VMBus") /* iasl refuses it as a constant: it is no PNP id */
            Method (_HID, 0, Serialized) { Return (HIDS) }
            Name (_UID, 0)
            Name (_DDN, "VMBUS")
            Method (_STA) { Return (0x0F) }
        }
    }
}
