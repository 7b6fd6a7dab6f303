/* What a generation-2 style machine without firmware has: a serial port, a clock, the windows of buses, power-off. */
DefinitionBlock ("", "DSDT", 2, "UMBRA", "UMBRADSD", 1)
{
    Name (\_S5, Package (4) { 0, 0, 0, 0 })
    Scope (\_SB)
    {
        Device (VMOD)
        {
            Name (_HID, "ACPI0004")
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xF8000000, 0xFEBFFFFF, 0, 0x06C00000)
            })
        }
        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 1, 8)
                IRQ (Edge, ActiveHigh, Exclusive) { 4 }
            })
        }
        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x70, 0x70, 1, 2)
                IRQ (Edge, ActiveHigh, Exclusive) { 8 }
            })
        }
    }
}
