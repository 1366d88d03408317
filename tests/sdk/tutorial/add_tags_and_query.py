"""The back end of the twin tutorial: tells where a device stands, then asks which devices stand there.

Takes the service connection string from HUB_CONNECTION and the device's name from DEVICE_ID.
"""

import os
import time

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties

IN_PLANT = "SELECT * FROM devices WHERE tags.location.plant = 'Redmond43'"
PAGE_SIZE = 100
# A hub's index follows its twins with a delay.
INDEX_DELAY_SECONDS = 1


def names_of(registry, query):
    result = registry.query_iot_hub(QuerySpecification(query=query), None, PAGE_SIZE)
    return ", ".join(twin.device_id for twin in result.items)


def main():
    device_id = os.environ["DEVICE_ID"]
    registry = IoTHubRegistryManager(os.environ["HUB_CONNECTION"])
    patch = Twin(
        tags={"location": {"region": "US", "plant": "Redmond43"}},
        properties=TwinProperties(desired={"power_level": 1}),
    )
    registry.update_twin(device_id, patch, registry.get_twin(device_id).etag)
    time.sleep(INDEX_DELAY_SECONDS)
    print("in the plant:", names_of(registry, IN_PLANT))
    print("in the plant, on cellular:", names_of(registry, IN_PLANT + " AND properties.reported.connectivity = 'cellular'"))


if __name__ == "__main__":
    main()
