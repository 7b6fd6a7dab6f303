/* Where the information page of Umbra's extension lies (docs/umbra-interface.md), where that is offered. */
DefinitionBlock ("", "SSDT", 2, "UMBRA", "UMBRAINF", 1)
{
    Scope (\_SB)
    {
        Device (UMBR)
        {
            Name (_HID, "UMBR0001")
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadOnly, 0xFED10000, 0x1000) })
        }
    }
}
