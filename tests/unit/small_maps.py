"""Small OpenDRIVE texts, written by hand, for tests that need numbers one can check by head."""

ROAD = """<road name="r" id="0" junction="-1" length="{length}" rule="RHT">
 <link/>
 <planView><geometry s="0" x="0" y="0" hdg="0" length="{length}"><line/></geometry></planView>
 <elevationProfile/><lateralProfile/>
 <lanes><laneSection s="0">
  <left>{left}</left>
  <center><lane id="0" type="none" level="false">
   <roadMark sOffset="0" type="broken" weight="standard" color="yellow" width="0.12"/>
  </lane></center>
  <right>{right}</right>
 </laneSection></lanes></road>"""

LANE = """<lane id="{id}" type="{type}" level="false">
 <width sOffset="0" a="3.5" b="0" c="0" d="0"/>
 <roadMark sOffset="0" type="solid" weight="standard" color="white" width="0.15"/></lane>"""


def straight_road(length: float = 100.0, lane_type: str = 'driving') -> str:
    """Return one road along the x axis with a lane of 3.5 m each way and dead ends."""
    road = ROAD.format(length=length, left=LANE.format(id=1, type=lane_type),
                       right=LANE.format(id=-1, type=lane_type))
    return f'<OpenDRIVE><header revMajor="1" revMinor="4" name="s"/>{road}</OpenDRIVE>'
