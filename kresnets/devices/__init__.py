"""Several devices of one machine, or of many, that train one model in step."""

from kresnets.devices.agree import agreed as agreed
from kresnets.devices.agree import apart as apart
from kresnets.devices.agree import first_file as first_file
from kresnets.devices.agree import is_first as is_first
from kresnets.devices.shares import Division as Division
from kresnets.devices.shares import in_shares as in_shares
from kresnets.devices.strategy import Devices as Devices
from kresnets.devices.strategy import all_devices as all_devices
from kresnets.devices.strategy import connect as connect
from kresnets.devices.strategy import disconnect as disconnect
